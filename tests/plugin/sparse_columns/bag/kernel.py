"""The bag's template, and the entry that hands its function to the op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sparse_columns.bag.operator import KERNELS, BagSpec
from sparse_columns.structure import Columns
from sparsecompile import Packed, Registry, Reject, Schedule, Source, Target, Template
from sparsecompile.codegen.cpp.built import Built
from sparsecompile.codegen.cpp.entry import Entry
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.kernel import Range

KERNEL = """\
SC_EXPORT void bag_columns(const char* layout, const int64_t* ids, float* out, int64_t bags,
                           int64_t size) {
  const SCLayoutHeader& header = *reinterpret_cast<const SCLayoutHeader*>(layout);
  const int64_t count = header.n ? header.slots / header.n : 0;
  const auto* kept = reinterpret_cast<const int32_t*>(layout + header.offsets[0]);
  const auto* values = reinterpret_cast<const float*>(layout + header.offsets[1]);
  for (int64_t b = 0; b < bags; ++b, ids += size, out += header.k) {
    for (int64_t column = 0; column < header.k; ++column) out[column] = 0;
    for (int64_t j = 0; j < size; ++j)
      for (int64_t i = 0; i < count; ++i) out[kept[i]] += values[ids[j] * count + i];
  }
}
"""


class ColumnsBag(Template[BagSpec]):
    """Adds the kept values alone."""

    name, language, operator = "columns_bag", "cpp", BagSpec.operator

    def supports(self, spec: BagSpec, target: Target, registry: Registry) -> None:
        """Return for `columns/float` in float32.

        Raises:
            Reject: anything else.
        """
        if str(spec.format) != f"{Columns()}/float" or spec.dtype != torch.float32:
            raise Reject(f"bags are made for columns/float in float32, not for {spec}")

    def schedules(self, spec: BagSpec, target: Target) -> Sequence[Schedule]:
        """One."""
        return (Schedule(),)

    def layout(self, schedule: Schedule) -> str:
        """The linear template's: both read the tensors of the Packed, concatenated."""
        return "columns"

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The tensors of the Packed."""
        return concatenate("columns", packed)

    def render(
        self, spec: BagSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """One function."""
        text = "\n".join((f"// {spec}", read("arguments.h"), KERNEL))
        return Source("bag_columns", "cpp", text, (("bag_columns", None),))


class BagEntry(Entry[BagSpec]):
    """Keeps the C function under the kernel's key."""

    name = BagSpec.operator

    def register(
        self,
        key: int,
        spec: BagSpec,
        first: Variant,
        ranges: Sequence[Range],
        built: Mapping[str, Built],
    ) -> Callable[[Tensor], Tensor] | None:
        """The layout needs no making."""
        KERNELS[key] = built[first.source_name].library.bag_columns
        return None

    def serve(self, call: int, key: int) -> None:
        """The same function under one more number."""
        KERNELS[call] = KERNELS[key]


COMPONENTS = (ColumnsBag(), BagEntry())
