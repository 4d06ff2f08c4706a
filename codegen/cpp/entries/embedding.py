"""The entry of packed embeddings: a row of the native library's table that can only unpack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sparsecompile.codegen.cpp.built import Built
from sparsecompile.codegen.cpp.entry import Entry
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.native import DTYPES, NativeKernel, load_native
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.kernel import Range
from sparsecompile.operators.embedding.spec import EmbeddingSpec


class EmbeddingEntry(Entry[EmbeddingSpec]):
    """See `text/native/embedding.cpp`."""

    name = EmbeddingSpec.operator

    def register(
        self,
        key: int,
        spec: EmbeddingSpec,
        first: Variant,
        ranges: Sequence[Range],
        built: Mapping[str, Built],
    ) -> Callable[[Tensor], Tensor] | None:
        """What unpacks rows."""
        own = built[first.source_name]
        layout = layout_id(first.layout, spec.format, spec.dtype)
        unpack = own.functions[ranges[0].symbol]
        load_native().register(
            NativeKernel(key=key, layout=layout, dtype=DTYPES[spec.dtype], unpack=unpack)
        )
        return own.relayout(layout)

    def serve(self, call: int, key: int) -> None:
        """One more row of the table."""
        load_native().serve(call, key)


COMPONENTS = (EmbeddingEntry(),)
