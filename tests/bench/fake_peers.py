"""A workload and peers that need nothing: what the tests of `bench peers` add."""

from __future__ import annotations

import sys

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared, Sample
from sparsecompile.bench.peers.torch_task import TorchTask, dtype_of


class Nothing(Workload):
    name, kind, unit = "nothing", "nothing", "things"
    sizes = (1, 2)

    def label(self, size: int) -> str:
        return f"{size} things"

    def missing(self, model: str | None) -> str | None:
        return None if model is None else f"no {model}"

    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        dtype_of(dtype)
        raise LeftOut("nothing to compile")


class Fake(Peer):
    """Options: what it does."""

    name = "fake"

    def variants(self, workload: Workload) -> tuple[str, ...]:
        return ("good", "slow") if workload.kind == "nothing" else ()

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        job.take(type="good")
        sys.stdout.write("this is no answer\n")
        count = iter(range(1_000_000))

        def run() -> Sample:
            return {"seconds": 0.05, "run": next(count)}

        return Prepared(run, 10 * job.size, "nothing at all", lambda: {"a part": 1.5})

    def versions(self) -> str:
        return "fake 1"


class Absent(Peer):
    name = "absent"
    requires = (("no_such_module", "no-such-package"), ("os", "os"))

    def variants(self, workload: Workload) -> tuple[str, ...]:
        return ("",)

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        raise AssertionError


COMPONENTS = (Nothing(), Fake(), Absent())
