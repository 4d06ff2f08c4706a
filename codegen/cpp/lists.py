"""The lists template: kept values with their columns, for unstructured weights and any m."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sparsecompile.codegen.cpp.epilogues import check_epilogue, render_epilogue
from sparsecompile.codegen.cpp.fragment import ELEMENTS, Codes, fragment_of
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.rounding import render_rounding
from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.cpp.weight import render_weight
from sparsecompile.errors import Reject
from sparsecompile.packed import Packed
from sparsecompile.problem import Contents
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target
from sparsecompile.template import Source, Template

if TYPE_CHECKING:
    from sparsecompile.costs import Cost

HEAD = """\
// {spec}
// template: lists; schedule: {schedule}; target: {target}
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
"""


class ListsLinear(Template):
    """Each kept value is multiplied with the same column of many rows of x, at once.

    Only what is kept takes time, in float32: from about four fifths of zeros on that is less than
    what matrix instructions take for all of it. The layout is made by generated C++ from the
    canonical tensors.
    """

    name = "lists"
    language = "cpp"
    reach = 0.45

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if values are floats and both parts have C++ fragments.

        Raises:
            Reject: another device, no fragment, values that are no floats, an unknown epilogue
                step, or x is to be rounded.
        """
        if target.device != "cpu":
            raise Reject(f"C++ is for CPUs, not for {target.device}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"{spec.dtype} activations have no C++ type")
        fragment_of(registry, spec.format.structure)
        codes = fragment_of(registry, spec.format.codec).codes(spec.format.codec, spec)
        if codes != Codes(spec.dtype.itemsize * 8):
            raise Reject(f"the values of {spec.format.codec} are not floats as they are")
        if spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")
        check_epilogue(spec.epilogue)

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """Blocks of x and of sums, 64 rows of x wide, that share the innermost cache."""
        choices = {"block_rows": 128, "block_columns": 256, "region_work": 1 << 16}
        return (Schedule.of(choices),)

    def layout(self, schedule: Schedule) -> str:
        """The size of blocks makes a layout."""
        return f"{self.name} {schedule['block_rows']}x{schedule['block_columns']}"

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """A value and the byte of its column, three bytes a list; what is kept is multiplied."""
        from sparsecompile.costs import Cost, m

        (n, k), size = weight.shape, spec.dtype.itemsize
        rows, columns = schedule["block_rows"], schedule["block_columns"]
        lists = -(-n // rows) * rows * -(-k // columns)
        stream = weight.values * (size + 1) + 3 * lists
        return Cost(stream + m * (n + k) * size, 2 * m * weight.values)

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The canonical tensors, from which the kernel's own `sc_prepack` makes the layout."""
        return concatenate("canonical", packed)

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Constants, the canonical weight and its fragments, then the loops."""
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
                *map(read, ("finish.h", "transpose.h", "lists.h", "lists_prepack.h")),
                read("lists_linear.h"),
            )
        )
        name = f"lists_{spec.identifier}_{schedule.tag}"
        return Source(name, "cpp", text, (("sc_linear", None),), prepacks=True)


COMPONENTS = (ListsLinear(),)
