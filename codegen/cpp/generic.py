"""The generic template: every structure x codec that has C++ fragments, any m."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsecompile.codegen.cpp.epilogues import check_epilogue, render_epilogue
from sparsecompile.codegen.cpp.fragment import ELEMENTS, fragment_of
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.rounding import check_rounding, render_rounding
from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.cpp.weight import render_weight
from sparsecompile.errors import Reject
from sparsecompile.packed import Packed
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target
from sparsecompile.template import Source, Template

BATCH_LANES = {"portable": 16, "avx2": 32}
DECODE_ROWS = 8

HEAD = """\
// {spec}
// template: generic; schedule: {schedule}; target: {target}
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
"""


class GenericLinear(Template):
    """Assembled from a structure's and a codec's fragments; the layout is the Packed itself."""

    name = "generic"
    language = "cpp"
    reach = 0.3

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if both parts have C++ fragments.

        Raises:
            Reject: another device, no fragment, an unknown epilogue step or rounding of x.
        """
        if target.device != "cpu":
            raise Reject(f"C++ is for CPUs, not for {target.device}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"{spec.dtype} activations have no C++ type")
        for part in (spec.format.structure, spec.format.codec):
            fragment_of(registry, part)
        check_epilogue(spec.epilogue)
        check_rounding(spec.activations)

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

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Arguments, prelude, Weight, fragments, epilogue, loops: a file that stands alone."""
        structure = fragment_of(registry, spec.format.structure)
        codec = fragment_of(registry, spec.format.codec)
        text = "\n".join(
            (
                HEAD.format(spec=spec, schedule=schedule, target=target),
                read("arguments.h"),
                read("prelude.h"),
                read("numbers.h"),
                render_weight(spec, dict(schedule.choices), structure, codec),
                structure.render(spec.format.structure, spec),
                codec.render(spec.format.codec, spec),
                read("activations.h"),
                render_rounding(spec.activations),
                render_epilogue(spec.epilogue),
                read("finish.h"),
                read("transpose.h"),
                read("generic.h"),
            )
        )
        name = f"generic_{spec.identifier}_{schedule.tag}"
        kernels = (("sc_linear_decode", DECODE_ROWS), ("sc_linear_batch", None))
        return Source(name, "cpp", text, kernels)


COMPONENTS = (GenericLinear(),)
