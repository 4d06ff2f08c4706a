"""Region: linears one after the other, and what stands between them, as one call of one op.

`sparsecompile::region(t0, ..., t31, region)`: tensors by number, None behind the last, and
`Region.key`. It returns two tensors, the second of which is empty where a region has one result.
Threads are started once: each computes for itself the rows that a linear reads, then its part of
the linear, and waits for the others. (On GPUs: Hazy Research, "Look Ma, No Bubbles!", 2025.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.kernels.ops import NAMESPACE
from sparsecompile.kernels.rows import Expression

MAX_INPUTS = 32
MAX_OUTPUTS = 2


@dataclass(frozen=True)
class Input:
    """A tensor that a region is handed.

    Attributes:
        dtype: of it; None for a layout or dense weight, which the linear checks itself.
        width: columns.
        is_vector: whether it is `[width]`, not `[..., width]`.
    """

    dtype: torch.dtype | None = None
    width: int = 0
    is_vector: bool = False


@dataclass(frozen=True)
class Stage:
    """Values that are computed for all rows, then a linear.

    Sources are numbers: of inputs first, then of values.

    Attributes:
        rows: new values and what they are.
        call: what the kernel of the linear is called, as in a call of `sparsecompile::linear`.
        n: rows of its weight.
        x: source of its input.
        weight: the input that is its layout.
        bias: the input that is its bias, if it has one.
        operands: sources that its epilogue reads.
        dense: inputs that are its dense weight.
        y: the value that it makes.
    """

    rows: tuple[tuple[int, Expression], ...]
    call: int
    n: int
    x: int
    weight: int
    bias: int | None
    operands: tuple[int, ...]
    dense: tuple[int, ...]
    y: int


@dataclass(frozen=True)
class Region:
    """A chain of stages.

    Attributes:
        dtype: of all rows.
        inputs: what it is handed.
        widths: columns of each value.
        stages: one after the other.
        outputs: the values that it returns.
        like: the input whose leading dimensions the results have.
    """

    dtype: torch.dtype
    inputs: tuple[Input, ...]
    widths: tuple[int, ...]
    stages: tuple[Stage, ...]
    outputs: tuple[int, ...]
    like: int

    def width(self, source: int) -> int:
        """Columns of a source."""
        inputs = len(self.inputs)
        return self.inputs[source].width if source < inputs else self.widths[source - inputs]


_known: dict[int, Region] = {}
"""Regions by the numbers that graphs call them."""
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_tensors = ", ".join(f"Tensor? t{i}" for i in range(MAX_INPUTS))
_library.define(f"region({_tensors}, int region) -> (Tensor, Tensor)")


def remember(key: int, region: Region) -> None:
    """Make a region known to the op's fake."""
    _known[key] = region


def arguments(region: Region, inputs: tuple[Any, ...], key: int) -> tuple[Any, ...]:
    """The op's arguments."""
    return (*inputs, *[None] * (MAX_INPUTS - len(inputs)), key)


def _fake(*args: Any) -> tuple[Tensor, Tensor]:
    region = _known[args[-1]]
    like = args[region.like]
    found = [like.new_empty((*like.shape[:-1], region.width(value))) for value in region.outputs]
    return found[0], found[1] if len(found) > 1 else like.new_empty((0,))


torch.library.register_fake(f"{NAMESPACE}::region", _fake, lib=_library)
