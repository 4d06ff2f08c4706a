"""Problem: a packed linear that needs a kernel, and what the choice of one depends on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod
from typing import Generic

import torch
from torch import Tensor

from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.spec import S, short_name

ROWS = (1, 4, 8, 16, 64, 128, 256, 512)
"""The m at which kernels for any m are compared; each stands for those after the one before."""
LAYOUT_ROWS = (1, 128)
"""The m by which layouts are compared where any m may come."""


def rows_of(x: Tensor) -> tuple[tuple[int, ...], bool]:
    """The m that a kernel for activations `[..., k]` is called with, and whether others may come.

    Args:
        x: the activations; sizes that vary from call to call are symbols.
    """
    lead = x.shape[:-1]
    if all(isinstance(size, int) for size in lead):
        return (max(1, prod(lead)),), False
    return ROWS, True


class Contents:
    """What costs depend on in a packed weight, each looked up once.

    Args:
        packed: the weight.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.shape = packed.shape
        self.nbytes = packed.nbytes
        self.stored = packed.slots
        value_bytes = sum(t.numel() * t.element_size() for t in packed.values.values())
        self.value_bits = 8 * value_bytes / packed.slots if packed.slots else 0.0
        self._tiles: dict[tuple[int, int], int] = {}

    @cached_property
    def kept(self) -> Tensor:
        """Which places of the dense weight `[n, k]` hold a value that is not zero: bool."""
        return self.packed.unpack() != 0

    @cached_property
    def values(self) -> int:
        """How many values are not zero."""
        return int(self.kept.sum())

    def tiles(self, rows: int, columns: int) -> int:
        """How many tiles of this size hold a value that is not zero."""
        key = (rows, columns)
        if key not in self._tiles:
            (n, k), kept = self.shape, self.kept
            padded = torch.nn.functional.pad(kept, (0, -k % columns, 0, -n % rows))
            tiles = padded.view(-(-n // rows), rows, -(-k // columns), columns)
            self._tiles[key] = int(tiles.any(3).any(1).sum())
        return self._tiles[key]


class DenseUse(Enum):
    """Where the dense linear may serve in place of a packed one.

    Attributes:
        NEVER: it would give another result.
        ALONE: for every m or for none: it needs a copy of the weight, besides which no other is
            kept.
        ANYWHERE: for any m.
    """

    NEVER = "never"
    ALONE = "alone"
    ANYWHERE = "anywhere"


@dataclass(frozen=True)
class Problem(Generic[S]):
    """A packed linear that needs a kernel, and what the choice may depend on.

    Attributes:
        spec: what it computes.
        shape: `(n, k)`.
        rows: the m it will be called with, one for each range of them, rising.
        is_dynamic: whether other m may come too; else there is one, that of `rows`.
        dense: whether torch's dense linear may serve it.
        tune: `off`, `cached`, `fast` or `full`.
        density: share of stored values, rounded.
        dense_copy: what the dense linear reads where it serves; None for the weight as it is.
        layout_rows: the m by which layouts are compared: those of all graphs that read the weight.
        layout: name of the one that has to be read; empty where one is to be chosen.
    """

    spec: S
    shape: tuple[int, int]
    rows: tuple[int, ...]
    is_dynamic: bool
    dense: DenseUse
    tune: str
    density: float
    dense_copy: DenseCopy | None = None
    layout_rows: tuple[int, ...] = LAYOUT_ROWS
    layout: str = ""

    def facts(self) -> dict[str, object]:
        """What timings at one m depend on: the key of the tuning record is made of it."""
        copy = {"dense": self.dense_copy.name} if self.dense_copy is not None else {}
        n, k = self.shape
        return {"spec": str(self.spec), "n": n, "k": k, "density": self.density, **copy}

    def __str__(self) -> str:
        """`n_m[2:4]/float bfloat16 1536x576`: what measurements are of, without an epilogue."""
        what = str(self.spec.plain).removeprefix("linear ")
        return f"{what} {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Trial:
    """One candidate at one m.

    Attributes:
        rows: m.
        candidate: its name.
        seconds: median time of a call, weights not in the cache.
        noise: seconds by which the median is uncertain.
        nbytes: bytes that a call has to move.
        chosen: whether it serves this m.
        cold: whether the weight was read from memory; else it may have been in a cache.
        peak: share of the arithmetic that the device is capable of, counting everything that its
            layout stores; None where that is not known.
    """

    rows: int
    candidate: str
    seconds: float
    noise: float
    nbytes: int
    chosen: bool = False
    cold: bool = True
    peak: float | None = None

    @property
    def bandwidth(self) -> float:
        """Bytes a second that it moves at least."""
        return self.nbytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def label(self) -> str:
        """Its short name: `strips decode`, `dense`."""
        return short_name(self.candidate)
