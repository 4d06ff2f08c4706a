"""The generic template: every structure x codec that has C++ fragments, any m."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

BATCH_LANES = {"portable": 16, "avx2": 32}
DECODE_ROWS = 8


class GenericLinear(CppTemplate):
    """Assembled from a structure's and a codec's fragments; the layout is the Packed itself."""

    name = "generic"
    relative_rate = 0.3
    kernels = (("sc_linear_decode", DECODE_ROWS), ("sc_linear_batch", None))
    stages = (("sc_linear_decode", DECODE_ROWS),)

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The default for the target's vector width.

        `batch_lanes` rows of x share a tile; `batch_columns` columns of a tile stay in the
        innermost cache while `batch_rows` rows of W pass; below `region_work` multiply-adds
        no other thread is woken.
        """
        lanes = BATCH_LANES.get(target.isa, 64)
        choices = {
            "batch_lanes": lanes,
            "batch_columns": 8192 // lanes,
            "batch_rows": 32,
            "region_work": 1 << 16,
        }
        return (Schedule.of(choices),)

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The default, and each of its choices halved or doubled; tiles of x keep their size."""
        (default,) = self.schedules(spec, target)
        lanes, columns, rows = (default[f"batch_{what}"] for what in ("lanes", "columns", "rows"))
        changes = (
            {"batch_columns": columns // 2},
            {"batch_columns": columns * 2},
            {"batch_rows": rows // 2},
            {"batch_rows": rows * 2},
            {"batch_lanes": lanes // 2, "batch_columns": columns * 2},
            {"batch_lanes": lanes * 2, "batch_columns": columns // 2},
        )
        chosen = dict(default.choices)
        return (default, *(Schedule.of({**chosen, **change}) for change in changes))

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The tensors of the Packed, concatenated."""
        return concatenate(self.name, packed)

    def files(self, spec: KernelSpec, schedule: Schedule) -> Sequence[str]:
        """One file of loops for all of them."""
        return ("finish.h", "turn.h", "transpose.h", "generic.h")


COMPONENTS = (GenericLinear(),)
