"""`low_rank`: a product of two thin matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecompile.errors import Reject
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.expression import Expression, Leaf, Product, Shape
from sparsecompile.formats.occupancy import Occupancy

_LOSSY = "lossy"
_MARGIN = 8
"""Columns of a sketch beyond the rank (Halko, Martinsson and Tropp, arXiv 0909.4061)."""


class LowRank(Decomposition):
    """`weight = u v`, `u` `[n, r]` and `v` `[r, k]`, of equal norms.

    - `low_rank[r]`: the parts make the weight up to `tolerance`;
    - `low_rank[r,lossy]`: the nearest of that rank, for `options["low_rank"]`;
    - `low_rank` finds r, up to 1.5 times the cube root of n k: to look further would take longer
      than to read the weight.

    Args:
        rank: r; 0 where it is to be found.
        lossy: whether the parts may make another weight.
    """

    family = "low_rank"

    def __init__(self, rank: int = 0, *, lossy: bool = False) -> None:
        self.rank, self.exact = rank, not lossy

    @property
    def name(self) -> str:
        """`low_rank[64]`, `low_rank[64,lossy]`, `low_rank`."""
        parameters = [str(self.rank)] * bool(self.rank) + [_LOSSY] * (not self.exact)
        return f"{self.family}[{','.join(parameters)}]" if parameters else self.family

    @classmethod
    def parse(cls, parameters: str) -> Self:
        """The rank, and whether it is lossy.

        Raises:
            ValueError: it says neither.
        """
        found = re.fullmatch(rf"([1-9]\d*)(,{_LOSSY})?", parameters)
        if found is None:
            raise ValueError("a rank is needed, as in low_rank[64] or low_rank[64,lossy]")
        return cls(int(found[1]), lossy=found[2] is not None)

    def form(self, shape: tuple[int, int]) -> Expression[Shape]:
        """`product([n, r], [r, k])`."""
        return Product((Leaf((shape[0], self.rank)), Leaf((self.rank, shape[1]))))

    def tolerance(self, dtype: torch.dtype) -> float:
        """A rounding to the dtype, and those of sums of r products in float32."""
        sums = torch.finfo(torch.float32).eps * math.sqrt(self.rank) / 4
        return torch.finfo(dtype).eps + sums

    def find(self, weight: Occupancy) -> LowRank:
        """The smallest rank with which the parts make the weight.

        A submatrix, whose rank is no larger, refutes it in the time that it takes to read all.

        Raises:
            Reject: the rank is larger than what is looked for.
        """
        n, k = weight.shape
        most = min(round(1.5 * (n * k) ** (1 / 3)), largest_rank((n, k)))
        if not most:
            raise Reject(f"{n} x {k} is no larger than factors of rank 1")
        least = _rank_of_some(weight.weight, most * 9 // 8 + _MARGIN)
        *_, values = _factors(weight.weight, min(least + _MARGIN, n, k), scaled=True)
        return LowRank(_needed(values, torch.finfo(weight.weight.dtype).eps / 2))

    def split(self, weight: Tensor) -> Expression[Tensor]:
        """The factors.

        Raises:
            Reject: what they make is further from the weight than `tolerance`.
        """
        if not 0 < self.rank <= min(weight.shape):
            raise Reject(f"{self.rank} is no rank of {' x '.join(map(str, weight.shape))}")
        u, v, _ = _factors(weight, self.rank, scaled=self.exact)
        parts = Product((Leaf(u.to(weight.dtype)), Leaf(v.to(weight.dtype))))
        if self.exact:
            _check(weight, parts, self.tolerance(weight.dtype))
        return parts

    def approximate(self, weight: Tensor) -> Tensor:
        """The nearest of half the largest rank that is found, or of its own."""
        n, k = weight.shape
        rank = self.rank or max(1, min(round((n * k) ** (1 / 3)), largest_rank((n, k)) // 2))
        u, v, _ = _factors(weight, rank, scaled=False)
        return (u @ v).to(weight.dtype)


def largest_rank(shape: Sequence[int]) -> int:
    """The largest rank of which factors are smaller than a weight of this shape; 0 for none."""
    n, k = shape
    return max(n * k - 1, 0) // max(n + k, 1)


def rank_of(shape: Sequence[int], share: float) -> int:
    """A share of the smaller side, 1 at least."""
    return max(1, round(share * min(shape)))


def rank_for(weight: Tensor, energy: float) -> int:
    """The smallest rank whose nearest weight keeps this share of the squared singular values.

    One too large for `largest_rank` where none up to that does.
    """
    total, most = float(weight.double().square().sum()), largest_rank(weight.shape)
    rank = min(64, most)
    while rank:
        *_, values = _factors(weight, rank, scaled=False)
        enough = values.double().square().cumsum(0) >= energy * total * (1 - 1e-6)
        if enough.any():
            return int(enough.nonzero()[0]) + 1
        if rank == most:
            break
        rank = min(2 * rank, most)
    return most + 1


def relative_error(weight: Tensor, parts: Expression[Tensor]) -> float:
    """`|made - weight| / |weight|`, Frobenius norms."""
    wide = weight.double()
    return float((parts.evaluate(Tensor.double) - wide).norm() / wide.norm().clamp_min(1e-300))


def _rank_of_some(weight: Tensor, side: int) -> int:
    """The rank of at most so many rows and columns, within rounding.

    Columns lie side by side: others would be as many reads of memory as all of them.

    Raises:
        Reject: it is full, but for a ninth of them, or they hold only zeros.
    """
    n, k = weight.shape
    step, first = max(n // side - 1, 0) | 1, max(0, (k - side) // 2)
    sample = weight[::step][:side, first : first + side].float()
    for dim in (1, 0):
        sizes = sample.abs().amax(dim, keepdim=True)
        kept = (sizes > 0).flatten().nonzero().flatten()
        if not kept.numel():
            raise Reject("no values in the rows and columns that were looked at")
        sample = (sample / sizes).index_select(1 - dim, kept)
    pivots = torch.linalg.lu_factor_ex(sample)[0].diagonal().abs()
    last = pivots[pivots.numel() * 8 // 9 :].median()
    # Pivots of what is left behind the rank are of the size of roundings, some of them larger.
    if not last < pivots.max() / 16:
        some = " x ".join(map(str, sample.shape))
        raise Reject(f"the rank of {some} of it is full: a lower one can be asked for")
    return 1 + max(int(place) for place in (pivots > 8 * last).nonzero())


def _factors(weight: Tensor, rank: int, *, scaled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`u` `[n, rank]`, `v` `[rank, k]` and the singular values, the nearest product of that rank.

    By a sketch of the range and two steps of subspace iteration, always the same.

    Args:
        weight: `[n, k]`.
        rank: of what is made of it.
        scaled: whether it is the nearest once all rows and columns are of about equal size: so
            that small ones are no less exact. The singular values are of that.

    Raises:
        Reject: a value is infinite or NaN.
    """
    wide = torch.float64 if weight.dtype == torch.float32 else torch.float32
    w = weight.to(wide)
    if not w.isfinite().all():
        raise Reject("it holds values that are not finite")
    rows, columns = _scales(w) if scaled else (w.new_ones(()), w.new_ones(()))
    w = w / rows / columns
    generator = torch.Generator().manual_seed(0)
    width = min(rank + _MARGIN, *w.shape)
    basis = torch.randn(w.shape[1], width, generator=generator).to(wide)
    for _ in range(2):
        basis = torch.linalg.qr(w @ basis).Q
        basis = torch.linalg.qr(w.T @ basis).Q
    u, values, v = torch.linalg.svd(w @ basis, full_matrices=False)
    root = values[:rank].sqrt()
    return u[:, :rank] * root * rows, root[:, None] * (v @ basis.T)[:rank] * columns, values[:rank]


def _scales(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of two, for every row and then every column, near their largest value."""
    rows = _power(weight.abs().amax(1, keepdim=True))
    return rows, _power((weight / rows).abs().amax(0, keepdim=True))


def _power(sizes: Tensor) -> Tensor:
    """The powers of two above; 1 for zero."""
    exponent = torch.frexp(sizes).exponent
    return torch.ldexp(torch.ones_like(sizes), exponent)


def _needed(values: Tensor, share: float) -> int:
    """How many singular values make up all but this share of the norm."""
    tail = values.double().square().flip(0).cumsum(0).flip(0).sqrt()
    return max(1, int((tail > share * tail[0]).sum()))


def _check(weight: Tensor, parts: Expression[Tensor], tolerance: float) -> None:
    """Return if parts make every row and column within a share of its norm.

    Raises:
        Reject: one is further off.
    """
    wide = weight.double()
    off = parts.evaluate(Tensor.double) - wide
    for dim, what in enumerate(("column", "row")):
        share = off.norm(dim=dim) / wide.norm(dim=dim).clamp_min(1e-300)
        worst = int(share.argmax())
        if not share[worst] <= tolerance:
            raise Reject(
                f"{what} {worst} of the product is {share[worst]:.2g} of its norm off, "
                f"{tolerance:.2g} may be"
            )


COMPONENTS = (LowRank(),)
