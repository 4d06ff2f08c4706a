"""`torch.compile` as it comes."""

from __future__ import annotations

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import Prepared
from sparsecompile.bench.peers.torch_task import guard_options


class Inductor(Peer):
    """Options: the dtype; `guards`; `freezing=1`."""

    name = "inductor"
    requires = (("torch", "torch"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Every workload."""
        return ("bfloat16", "float32")

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """Inductor alone."""
        chosen = job.take(type="float32", freezing="0", guards="all")
        task = workload.torch_task(job, chosen["type"])
        options = guard_options(chosen["guards"])
        frozen = chosen["freezing"] != "0"
        if frozen:
            options["freezing"] = True
        compiled = torch.compile(task.function, options=options or None)
        return task.prepared(compiled, "frozen weights" if frozen else "")


COMPONENTS = (Inductor(),)
