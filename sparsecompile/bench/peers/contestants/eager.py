"""torch without a compiler."""

from __future__ import annotations

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import Prepared


class Eager(Peer):
    """Options: the dtype."""

    name = "eager"
    requires = (("torch", "torch"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Every workload."""
        return ("bfloat16",)

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """As it is."""
        task = workload.torch_task(job, job.take(type="float32")["type"])
        return task.prepared(task.function)


COMPONENTS = (Eager(),)
