"""The lists template: kept values with their columns, for unstructured weights and any m."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


class ListsLinear(CppTemplate):
    """Each kept value is multiplied with the same column of many rows of x, at once.

    Only what is kept takes time, in float32: from about four fifths of zeros on that is less than
    what matrix instructions take for all of it. The layout is made by generated C++ from the
    canonical tensors.
    """

    name = "lists"
    relative_rate = 0.45
    kernels = (("sc_linear_decode", 1), ("sc_linear_batch", None))
    stages = (("sc_linear_decode", 1),)

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if values are floats and both parts have C++ fragments.

        Raises:
            Reject: another device, no fragment, values that are no floats, an unknown epilogue
                step, or x is to be rounded.
        """
        super().supports(spec, target, registry)
        if spec.format.codec.coding(spec.dtype) != Coding(8 * spec.dtype.itemsize):
            raise Reject(f"the values of {spec.format.codec} are not floats as they are")
        if spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """Blocks of x and of sums, 64 rows of x wide, that share the innermost cache."""
        choices = {"block_rows": 128, "block_columns": 256, "region_work": 1 << 16}
        return (Schedule.of(choices),)

    def layout(self, schedule: Schedule) -> str:
        """The most that a block may have makes a layout."""
        return f"{self.name} even {schedule['block_rows']}x{schedule['block_columns']}"

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """A value and the byte of its column, three bytes a list; what is kept is multiplied."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        (n, k), size = weight.shape, spec.dtype.itemsize
        rows, columns = schedule["block_rows"], schedule["block_columns"]
        lists = -(-n // rows) * rows * -(-k // columns)
        stream = weight.values * (size + 1) + 3 * lists
        return Cost(stream + m * (n + k) * size, 2 * m * weight.values)

    def files(self, spec: KernelSpec, schedule: Schedule) -> Sequence[str]:
        """The layout, and loops over it."""
        layout = ("lists/layout.h", "lists/prepack.h")
        loops = ("lists/multiply.h", "lists/batch.h", "lists/decode.h")
        return ("finish.h", "turn.h", "transpose.h", *layout, *loops)


COMPONENTS = (ListsLinear(),)
