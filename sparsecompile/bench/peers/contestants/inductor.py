"""`torch.compile` as it comes."""

from __future__ import annotations

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import Prepared


class Inductor(Peer):
    """Options: the dtype; `freezing=1`."""

    name = "inductor"
    requires = (("torch", "torch"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Every workload."""
        return ("bfloat16", "float32")

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """Inductor alone."""
        chosen = job.take(type="float32", freezing="0")
        task = workload.torch_task(job, chosen["type"])
        if chosen["freezing"] == "0":
            return task.prepared(torch.compile(task.function))
        compiled = torch.compile(task.function, options={"freezing": True})
        return task.prepared(compiled, "frozen weights")


COMPONENTS = (Inductor(),)
