"""Entry: how an operator's C++ kernels get known to the op that calls them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic

from torch import Tensor

from sparsecompile.codegen.cpp.built import Built
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.component import Component
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.spec import S


class Entry(Component, Generic[S]):
    """For one operator, whose name it has."""

    name: ClassVar[str]
    symbols: ClassVar[tuple[str, ...]] = ()
    """What every source exports besides the functions that serve its ranges."""

    @abstractmethod
    def register(
        self,
        key: int,
        spec: S,
        first: Variant,
        ranges: Sequence[Range],
        built: Mapping[str, Built],
    ) -> Callable[[Tensor], Tensor] | None:
        """Make a kernel known to its op.

        Args:
            key: what graphs call it.
            spec: what it computes.
            first: the variant that makes the layout.
            ranges: which function serves which rows, by rising m.
            built: the loaded sources by name.

        Returns:
            What makes the layout out of what the template's `prepack` returns, if that is not it.
        """

    @abstractmethod
    def serve(self, call: int, key: int) -> None:
        """Let what graphs call `call` run a kernel, where the weight has its layout.

        Args:
            call: another number than a key.
            key: of a kernel that is registered.
        """
