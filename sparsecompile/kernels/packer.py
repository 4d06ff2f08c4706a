"""Packer: makes a layout of a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from torch import Tensor

from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec, S, Schedule
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost
    from sparsecompile.kernels.problem import Problem
    from sparsecompile.registry import Registry


class Packer(ABC, Generic[S]):
    """Makes a layout of a weight; the first schedule is the default.

    What templates and those library calls that read a layout of their own have in common.
    """

    name: ClassVar[str]
    operator: ClassVar[str] = KernelSpec.operator
    """Whose nodes it serves."""
    relative_rate: ClassVar[float] = 1.0
    """How fast its loops are on the same arithmetic, beside those of templates with 1. One that is
    slower is measured only where none of the others has less to do."""

    @abstractmethod
    def schedules(self, spec: S, target: Target) -> Sequence[Schedule]:
        """The schedules worth trying, best guess first."""

    def search(self, spec: S, target: Target) -> Sequence[Schedule]:
        """What `tune="full"` measures: more of them where there is time for it."""
        return self.schedules(spec, target)

    def fits(self, problem: Problem[S]) -> bool:
        """Whether it serves a problem, given that it serves its spec."""
        return True

    def cost(self, spec: S, schedule: Schedule, weight: Any) -> Cost:
        """What a call has to move and compute at least, for a weight like this one.

        Candidates are ordered by it, and those that cannot win are not measured.

        Args:
            spec: what is computed.
            schedule: one of this packer's.
            weight: what the operator's `sample` makes: `Contents` of a weight.
        """
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        slots, (n, k) = weight.stored, weight.shape
        moved = weight.nbytes + m * (n + k) * spec.dtype.itemsize
        return Cost(moved, 2 * m * slots)

    def layout(self, schedule: Schedule) -> str:
        """Name of the layout: kernels whose layouts have one name read the same bytes."""
        return self.name

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The physical layout: one contiguous `[bytes]` uint8 tensor, made once for all m.

        It holds no thread count and no pointer. Where a template's source says `prepacks`, this is
        what its `sc_prepack` takes.

        Args:
            packed: the weight.
            schedule: one of this packer's.
            registry: where the fragments are that it may need.

        Raises:
            NotImplementedError: its operator has no weights.
        """
        raise NotImplementedError(f"{self.name} has no layout: there is no weight that it reads")
