"""Predicate: a user's own `mask_mod` as a pattern."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.pattern import OPTION, MaskPattern

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Predicate(MaskPattern):
    """`function(b, h, q, kv)`; every tile is looked into, some at a time.

    Attributes:
        function: as FlexAttention's `mask_mod`, of tensors that broadcast.
        batch_size: entries of the batch that it tells apart.
        head_count: heads that it tells apart.
    """

    function: Function
    batch_size: int = 1
    head_count: int = 1

    family = "predicate"

    @property
    def name(self) -> str:
        """The function's: two functions of one name are two patterns."""
        return f"predicate[{_named(self.function)}]"

    @property
    def batch(self) -> int:
        """As it was said."""
        return self.batch_size

    @property
    def heads(self) -> int:
        """As it was said."""
        return self.head_count

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """What the function returns.

        Raises:
            OptionError: it raises something, or returns no booleans of the places' shape.
        """
        shape = torch.broadcast_shapes(b.shape, h.shape, q.shape, kv.shape)
        what = f"the mask {_named(self.function)}(b, h, q, kv)"
        needs = "return a bool for each place, in operations on tensors"
        try:
            kept = self.function(b, h, q, kv)
        except Exception as error:
            raise OptionError(
                OPTION,
                f"{what} raised {type(error).__name__}: {error} for places {tuple(shape)}; {needs}",
            ) from error
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool:
            found = kept.dtype if isinstance(kept, Tensor) else type(kept).__name__
            raise OptionError(OPTION, f"{what} returned {found}; {needs}")
        if not _broadcasts(kept.shape, shape):
            raise OptionError(
                OPTION,
                f"{what} returned {tuple(kept.shape)} for places {tuple(shape)}; {needs}",
            )
        return kept

    def __eq__(self, other: object) -> bool:
        """The same function."""
        mine = (self.function, self.batch_size, self.head_count)
        return isinstance(other, Predicate) and mine == (
            other.function,
            other.batch_size,
            other.head_count,
        )

    def __hash__(self) -> int:
        """By the function."""
        return hash(self.function)


def _named(function: Function) -> str:
    return getattr(function, "__name__", repr(function))


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    try:
        return bool(torch.broadcast_shapes(shape, to) == to)
    except RuntimeError:
        return False
