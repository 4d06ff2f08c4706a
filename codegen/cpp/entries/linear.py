"""The entry of packed linears: a row of the native library's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sparsecompile.codegen.cpp.built import Built
from sparsecompile.codegen.cpp.entry import Entry
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.native import (
    DTYPES,
    ENDLESS,
    MAX_RANGES,
    NativeKernel,
    load_native,
)
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.spec import KernelSpec


class LinearEntry(Entry[KernelSpec]):
    """See `text/native/kernels.h`."""

    name = KernelSpec.operator
    symbols = ("sc_workspace", "sc_unpack", "sc_finish")

    def register(
        self,
        key: int,
        spec: KernelSpec,
        first: Variant,
        ranges: Sequence[Range],
        built: Mapping[str, Built],
    ) -> Callable[[Tensor], Tensor] | None:
        """Functions by ranges, and those of the layout itself.

        Raises:
            SparseCompileError: more ranges than a kernel can have.
        """
        if len(ranges) > MAX_RANGES:
            raise SparseCompileError(
                f"a kernel for {spec} has {len(ranges)} ranges of m, at most {MAX_RANGES} "
                "are possible"
            )
        own = built[first.source_name]
        layout = layout_id(first.layout, spec.format, spec.dtype)
        native = NativeKernel(
            key=key,
            layout=layout,
            dtype=DTYPES[spec.dtype],
            operands=spec.operands,
            epilogue=bool(spec.epilogue),
            ranges=len(ranges),
            unpack=own.functions["sc_unpack"],
            finish=own.functions["sc_finish"],
        )
        for i, part in enumerate(ranges):
            functions = built[part.source].functions
            native.linear[i] = functions[part.symbol]
            native.workspace[i] = functions["sc_workspace"]
            native.largest_m[i] = ENDLESS if part.largest_m is None else part.largest_m
            native.dense[i] = part.dense
            native.stage_m[i] = part.stage_m
        load_native().register(native)
        return own.relayout(layout)

    def serve(self, call: int, key: int) -> None:
        """One more row of the table."""
        load_native().serve(call, key)


COMPONENTS = (LinearEntry(),)
