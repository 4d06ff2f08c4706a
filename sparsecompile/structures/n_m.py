"""`n_m`: at most n of every m consecutive weights of a row are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import ceil, comb, log2
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.bits import pack_codes, unpack_codes
from sparsecompile.structures.group_masks import all_masks, count_bits, fill, group_masks
from sparsecompile.structures.magnitude import largest_of_groups, magnitudes

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class NM(Structure):
    """Exactly `n` slots for each group of `m` columns, 2 <= m <= 32, and one code a group.

    Index tensors: `codes` `[rows, bytes]` uint8, the codes of a row's groups one after the other,
    first in the lowest bits, 16- and 32-bit codes little-endian. The code of a group is

    - 2:4: the two positions, two bits each, lower position in the lower bits;
    - otherwise the rank of the group's mask among all masks of n in m bits, in ascending order;
    - or the mask itself, bit p for column p, where that is no larger.

    Its width, `ceil(log2(C(m, n)))`, is rounded up to a power of two, so that no code straddles
    the word it is read from. `dense.view(rows, groups, m)[masks.bool()] = values`. Groups with
    fewer than n kept values are filled with zeros at their lowest free positions. 2:4 is the
    format of Mishra et al. (arXiv 2104.08378).
    """

    n: int
    m: int

    family = "n_m"

    def __post_init__(self) -> None:
        """Check the ratio.

        Raises:
            ValueError: not 1 <= n < m <= 32.
        """
        if not 1 <= self.n < self.m <= 32:
            raise ValueError(f"{self.n}:{self.m} is not an n:m with 1 <= n < m <= 32")

    @property
    def name(self) -> str:
        """`n_m[2:4]`."""
        return f"n_m[{self.n}:{self.m}]"

    @classmethod
    def parse(cls, parameters: str) -> NM:
        """From `2:4`.

        Raises:
            ValueError: not a ratio.
        """
        kept, _, size = parameters.partition(":")
        return cls(int(kept), int(size))

    @property
    def coding(self) -> str:
        """`positions`, `rank` or `mask`: what the code of a group is."""
        if (self.n, self.m) == (2, 4):
            return "positions"
        return "rank" if self._rank_bits < _power_of_two(self.m) else "mask"

    @property
    def code_bits(self) -> int:
        """Width of a code: 1, 2, 4, 8, 16 or 32 bits."""
        return min(self._rank_bits, _power_of_two(self.m))

    @property
    def _rank_bits(self) -> int:
        return _power_of_two(max(1, ceil(log2(comb(self.m, self.n)))))

    def most_kept(self, columns: int) -> int:
        """`n` of every group that has some of them."""
        if columns % self.m == 0:
            return columns // self.m * self.n
        return min(self.n, columns) if self.m % columns == 0 else columns

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Columns rounded up to whole groups."""
        return shape[0], -(-shape[1] // self.m) * self.m

    def find(self, weight: Occupancy) -> int:
        """`n` slots a group.

        Raises:
            Reject: a group keeps more than `n`.
        """
        counts = weight.group_counts(self.m)
        if weight.group_range(self.m)[1] > self.n:
            row, group, kept = _first_above(counts, self.n)
            raise Reject(
                f"row {row}, group {group} keeps {kept} of {self.m}, at most {self.n} allowed"
            )
        return counts.numel() * self.n

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """`codes`."""
        rows, columns = self.padded(weight.shape)
        groups = columns // self.m
        mask = torch.nn.functional.pad(
            weight.mask.view(torch.uint8), (0, columns - weight.shape[1])
        )
        if self.m <= 8:
            codes = _fill_table(self.n, self.m)[group_masks(mask, self.m, torch.uint8).int()]
            return {"codes": self._store(codes.view(rows, groups))}
        full = fill(group_masks(mask, self.m, torch.int64), self.n, self.m)
        return {"codes": self._store(self._code(full))}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Places of the set bits of all group masks in row-major order."""
        _, columns = self.padded(shape)
        codes = self._load(index["codes"], columns // self.m)
        if self.coding == "positions":
            pairs = torch.stack((codes & 3, codes >> 2), -1).view(-1, 2)
            return (pairs + 4 * torch.arange(len(pairs))[:, None]).reshape(-1)
        bits = (self._masks(codes).unsqueeze(-1) >> torch.arange(self.m)) & 1
        return bits.reshape(-1).nonzero().squeeze(1)

    def gather(self, weight: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """For 2:4 two selections a group; in general `weight[positions]`."""
        if self.coding != "positions":
            return super().gather(weight, index)
        _, columns = self.padded((weight.shape[0], weight.shape[1]))
        weight = torch.nn.functional.pad(weight, (0, columns - weight.shape[1]))
        codes = self._load(index["codes"], columns // 4).reshape(-1)
        pairs = torch.stack((codes & 3, codes >> 2), 1)
        return torch.gather(weight.reshape(-1, 4), 1, pairs).reshape(-1)

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A row of codes and equally many slots a row."""
        count = self.padded(shape)[1] // self.m * self.n
        slots = groups[:, None] * count + torch.arange(count)
        return {"codes": index["codes"][groups]}, slots.reshape(-1)

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if every code stands for n of m columns.

        Raises:
            Reject: one does not.
        """
        rows, groups = shape[0], self.padded(shape)[1] // self.m
        codes, width = index["codes"], -(-groups * self.code_bits // 8)
        if codes.shape != (rows, width):
            raise Reject(f"codes has shape {tuple(codes.shape)}, [{rows}, {width}] is needed")
        if slots != rows * groups * self.n:
            raise Reject(f"codes stand for {rows * groups * self.n} slots, not {slots}")
        for part in codes.split(max(1, 2**20 // max(groups, 1))):
            if not bool(self._are_codes(self._load(part, groups)).all()):
                raise Reject(f"codes holds one that stands for no {self.n} of {self.m} columns")

    def _are_codes(self, codes: Tensor) -> Tensor:
        if self.coding == "positions":
            return torch.bitwise_and(codes, 3) < codes >> 2
        if self.coding == "rank":
            return codes < len(all_masks(self.n, self.m))
        return count_bits(codes, self.m) == self.n

    def index_bits(self) -> sympy.Expr:
        """One code a group, rows padded to bytes."""
        import sympy

        from sparsecompile.formats.symbols import k, n

        return 8 * n * sympy.ceiling(sympy.ceiling(k / self.m) * sympy.Rational(self.code_bits, 8))

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Keep the `n` largest magnitudes of every group; ties go to the lower column.

        Raises:
            ValueError: a share is given; n and m fix it.
        """
        if sparsity is not None:
            raise ValueError(f"{self.name} fixes the share of zeros, {sparsity} cannot be set")
        rows, columns = self.padded((weight.shape[0], weight.shape[1]))
        padding = (0, columns - weight.shape[1])
        cells = torch.nn.functional.pad(magnitudes(weight.contiguous()), padding, value=-1)
        mask = largest_of_groups(cells.view(-1, self.m), self.n)
        return mask.view(rows, columns)[:, : weight.shape[1]].contiguous()

    def _code(self, masks: Tensor) -> Tensor:
        if self.coding == "mask":
            return masks
        if self.coding == "rank":
            return torch.searchsorted(all_masks(self.n, self.m), masks)
        return _pair_codes()[masks]

    def _masks(self, codes: Tensor) -> Tensor:
        if self.coding == "mask":
            return codes
        if self.coding == "rank":
            return all_masks(self.n, self.m)[codes]
        one = torch.ones_like(codes)
        return torch.bitwise_or(one << (codes & 3), one << (codes >> 2))

    def _store(self, codes: Tensor) -> Tensor:
        """`[rows, groups]` codes to `[rows, bytes]` uint8."""
        if self.code_bits <= 8:
            return pack_codes(codes.to(torch.uint8), self.code_bits)
        word = torch.int16 if self.code_bits == 16 else torch.int32
        return codes.to(word).view(torch.uint8)

    def _load(self, codes: Tensor, groups: int) -> Tensor:
        """Inverse of `_store`, as int64."""
        if self.code_bits <= 8:
            return unpack_codes(codes, self.code_bits, groups).long()
        word = torch.int16 if self.code_bits == 16 else torch.int32
        words = codes.reshape(-1).view(word).view(codes.shape[0], groups).long()
        return torch.bitwise_and(words, 2**self.code_bits - 1)


def _first_above(counts: Tensor, limit: int) -> tuple[int, int, int]:
    """Row, group and count of the first count above a limit; most often it is in the first rows."""
    for rows in (counts[:8], counts):
        places = (rows > limit).nonzero()
        if len(places):
            row, group = places[0].tolist()
            return row, group, int(counts[row, group])
    raise ValueError(f"no count is above {limit}")


def _power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


@lru_cache
def _pair_codes() -> Tensor:
    """Code of each 4-bit mask with two bits set: `[16]` int64."""
    codes = torch.zeros(16, dtype=torch.int64)
    for low, high in combinations(range(4), 2):
        codes[(1 << low) | (1 << high)] = low | high << 2
    return codes


@lru_cache
def _fill_table(n: int, m: int) -> Tensor:
    """Code of every mask of at most n in m <= 8 bits, filled up: `[2 ** m]` uint8."""
    masks = torch.arange(2**m)
    kept = count_bits(masks, m)
    full = torch.where(kept <= n, fill(masks, n, m), 0)
    structure = NM(n, m)
    known = torch.isin(full, all_masks(n, m))
    return torch.where(known, structure._code(torch.where(known, full, all_masks(n, m)[0])), 0).to(
        torch.uint8
    )


COMPONENTS = (
    NM(2, 4),
    NM(1, 2),
    NM(1, 4),
    NM(1, 8),
    NM(2, 8),
    NM(4, 8),
    NM(1, 16),
    NM(4, 16),
    NM(8, 16),
    NM(16, 32),
)
