"""`torch.compile(model, backend="sparse")`."""

from __future__ import annotations

from typing import Any

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared
from sparsecompile.bench.peers.torch_task import guard_options
from sparsecompile.compiler import Compiler
from sparsecompile.errors import OptionError

VARIANTS = {
    "decode": ("bfloat16", "bfloat16+quantize=int4", "bfloat16+prune=2:4+quantize=int4"),
    "generate": ("bfloat16+quantize=int4",),
    "prefill": (
        "bfloat16+prune=2:4",
        "bfloat16+prune=2:4+quantize=int8",
        "bfloat16+quantize=int8",
    ),
    "encode": ("bfloat16", "bfloat16+prune=2:4", "bfloat16+prune=2:4+quantize=int8"),
}
OTHERS = ("bfloat16", "bfloat16+prune=2:4")


class Sparse(Peer):
    """Options: the dtype; `guards`; `regions=off`; `prune`, `quantize`, `tune` as the backend's."""

    name = "sparse"
    requires = (("sparsecompile", "sparsecompile"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Every workload."""
        return VARIANTS.get(workload.kind, OTHERS)

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """The backend with these options."""
        given: dict[str, Any] = dict(job.options)
        dtype = str(given.pop("type", "float32"))
        guards = guard_options(str(given.pop("guards", "all")))
        if "regions" in given:
            given["regions"] = given["regions"] != "off"
        try:
            compiler = Compiler(**given)
        except OptionError as error:
            raise LeftOut(str(error)) from error
        task = workload.torch_task(job, dtype)
        compiled = torch.compile(task.function, backend=compiler, options=guards or None)
        ready = task.prepared(compiled)
        ready.run()
        report = compiler.report
        packed = sum(node.packed for node in report.linears)
        graphs = f"{report.graphs} graph{'' if report.graphs == 1 else 's'}"
        size = f"{report.dense_bytes / 1e6:.0f} -> {report.packed_bytes / 1e6:.0f} MB"
        return task.prepared(
            compiled, f"{packed} of {len(report.linears)} linears packed, {graphs}, {size}"
        )


COMPONENTS = (Sparse(),)
