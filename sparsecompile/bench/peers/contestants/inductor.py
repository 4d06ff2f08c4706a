"""`torch.compile` as it comes."""

from __future__ import annotations

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Prepared, Workload


class Inductor(Peer):
    """Options: the dtype; `freezing=1`."""

    name = "inductor"
    requires = {"torch": "torch"}  # noqa: RUF012

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Every workload."""
        return ("bfloat16", "float32")

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """Inductor alone."""
        chosen = job.take(type="float32", freezing="0")
        task = workload.torch_task(job, chosen["type"])
        options = {"freezing": chosen["freezing"] == "1"}
        frozen = "frozen weights" if options["freezing"] else ""
        return task.prepared(torch.compile(task.function, options=options), frozen)


COMPONENTS = (Inductor(),)
