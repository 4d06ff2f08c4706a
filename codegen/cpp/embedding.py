"""Rows of layouts that templates of linears make: their sources have `sc_unpack`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lists import ListsLinear
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.operators.embedding.spec import EmbeddingSpec
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


@dataclass(frozen=True)
class EmbeddingRows(Template[EmbeddingSpec]):
    """Unpacks rows of the layout that a template of packed linears makes, one after the other.

    Its sources are those of the linear: where the table is a head's weight, too, nothing more is
    built, and both read one layout.

    Attributes:
        linear: the template.
    """

    linear: CppTemplate
    language = "cpp"
    operator = EmbeddingSpec.operator

    @property
    def name(self) -> str:  # type: ignore[override]
        """`strips_rows`."""
        return f"{self.linear.name}_rows"

    def supports(self, spec: EmbeddingSpec, target: Target, registry: Registry) -> None:
        """Return if the template can serve a linear of the table.

        Raises:
            Reject: it cannot.
        """
        self.linear.supports(_linear(spec), target, registry)

    def schedules(self, spec: EmbeddingSpec, target: Target) -> Sequence[Schedule]:
        """Those of the template: each makes a layout."""
        return self.linear.schedules(_linear(spec), target)

    def cost(self, spec: EmbeddingSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Of each id the row, at the share of the table that it has."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        n, k = weight.shape
        row = weight.nbytes // max(n, 1) + k * spec.dtype.itemsize
        return Cost(m * row, 2 * m * k)

    def layout(self, schedule: Schedule) -> str:
        """The template's."""
        return self.linear.layout(schedule)

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The template's."""
        return self.linear.prepack(packed, schedule, registry)

    def render(
        self, spec: EmbeddingSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """The linear's source, of which one function serves every number of ids."""
        source = self.linear.render(_linear(spec), schedule, target, registry)
        return replace(source, kernels=(("sc_unpack", None),))


def _linear(spec: EmbeddingSpec) -> KernelSpec:
    """A linear of the same table."""
    return KernelSpec(spec.format, spec.dtype)


COMPONENTS = tuple(
    EmbeddingRows(linear) for linear in (StripsLinear(), ListsLinear(), GenericLinear())
)
