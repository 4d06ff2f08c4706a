"""Problem: a node that needs a kernel, and what the choice of one depends on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Generic

from torch import Tensor

from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.spec import S, Spec

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
    """A node that needs a kernel, and what the choice may depend on.

    Attributes:
        spec: what it computes.
        shape: its sizes that do not vary: `(n, k)` of a weight; see `axes`.
        rows: the m it will be called with, one for each range of them, rising.
        is_dynamic: whether other m may come too; else there is one, that of `rows`.
        dense: whether what the model has, such as torch's dense linear, may serve it.
        tune: `off`, `cached`, `fast` or `full`.
        density: share of stored values, or of the places of a mask that count, rounded.
        dense_copy: what the dense linear reads where it serves; None for the weight as it is.
        layout_rows: the m by which layouts are compared: those of all graphs that read the weight.
        layout: name of the one that has to be read; empty where one is to be chosen.
        axes: names of the sizes in `shape`.
        details: what else timings depend on, by name.
    """

    spec: S
    shape: tuple[int, ...]
    rows: tuple[int, ...]
    is_dynamic: bool
    dense: DenseUse
    tune: str
    density: float
    dense_copy: DenseCopy | None = None
    layout_rows: tuple[int, ...] = LAYOUT_ROWS
    layout: str = ""
    axes: tuple[str, ...] = ("n", "k")
    details: tuple[tuple[str, str], ...] = ()

    def facts(self) -> dict[str, object]:
        """What timings at one m depend on: the key of the tuning record is made of it."""
        copy = {"dense": self.dense_copy.name} if self.dense_copy is not None else {}
        sizes = dict(zip(self.axes, self.shape, strict=True))
        known = {"spec": str(self.spec), **sizes, "density": self.density, **copy}
        # Records of linears were there before there was another baseline.
        if self.spec.baseline != Spec.baseline:
            known["baseline"] = self.spec.baseline
        return {**known, **dict(self.details)}

    def __str__(self) -> str:
        """`n_m[2:4]/float bfloat16 1536x576`: what measurements are of, without an epilogue."""
        what = str(self.spec.plain).removeprefix("linear ")
        return " ".join((what, "x".join(map(str, self.shape)), *(v for _, v in self.details)))
