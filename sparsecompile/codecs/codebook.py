"""`codebook`: places in a table of values that belongs to the weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.codecs.parameters import Parametric, choice, number
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places
from sparsecompile.structures.bits import load_stream, store_stream, stream_bytes, take_stream

if TYPE_CHECKING:
    import sympy

_ROUNDS = 20
"""Of k-means."""


@dataclass(frozen=True, eq=False)
class Codebook(Parametric):
    """Places in a table of values: `weight = table[row // rows, code]`.

    Value tensors: `values`, codes as in `Scaled`, and `table` `[tables, 2 ** bits]` in the weight's
    dtype, ascending: one table, or `ceil(n / rows)`. What is rounded takes the nearest entry of a
    table that k-means makes, beginning with quantiles; where there are few values they are the
    table.

    Attributes:
        bits: of a code, 1 to 8.
        rows: rows that share a table, 0 for all.
        lossless: whether weights are stored bit for bit or refused.
    """

    bits: int = number(4, "1 to 8")
    rows: int = number(0, "rows")
    lossless: bool = choice(False, {"lossless": True})

    family = "codebook"

    def __post_init__(self) -> None:
        """Check how many bits there are.

        Raises:
            ValueError: less than one, or more than a byte.
        """
        if not 1 <= self.bits <= 8:
            raise ValueError(f"codes of {self.bits} bits, 1 to 8 are needed")

    def check(self, weight: Tensor) -> None:
        """Return if every value is finite.

        Raises:
            Reject: one is not.
        """
        if not bool(weight.isfinite().all()):
            row, column = (~weight.isfinite()).nonzero()[0].tolist()
            raise Reject(
                f"row {row}, column {column} holds {float(weight[row, column]):g}, "
                f"{self} stores finite values"
            )

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """`values` and `table`.

        Raises:
            Reject: it is lossless, and rows hold more values than a table.
        """
        which, (n, k) = self._tables(places), places.shape
        codes = torch.zeros(values.numel(), dtype=torch.uint8)
        table = torch.zeros(self._count(n), 2**self.bits, dtype=values.dtype)
        which = torch.where((places.rows < n) & (places.columns < k), which, len(table))
        order, counts = which.argsort(stable=True), which.bincount(minlength=len(table) + 1)
        for i, here in enumerate(order.split(counts.tolist())[:-1]):
            if here.numel():
                entries = self._entries(values[here], i)
                table[i, : len(entries)], table[i, len(entries) :] = entries, entries[-1]
                codes[here] = _nearest(values[here], entries).to(torch.uint8)
        return {"values": store_stream(codes, self.bits), "table": table}

    def _entries(self, values: Tensor, index: int) -> Tensor:
        """The table of some values `[v]`: ascending, at most `2 ** bits`.

        Raises:
            Reject: they are to be stored bit for bit, and too many.
        """
        size = 1 << self.bits
        found: Tensor = values.unique()
        if found.numel() <= size:
            return found
        if self.lossless:
            first = f"row {index * self.rows}" if self.rows else "the weight"
            raise Reject(f"{first} holds {found.numel()} values, the table of {self} {size}")
        ordered = values.double().sort().values
        means = ordered[(torch.arange(size) * 2 + 1) * ordered.numel() // (2 * size)].unique()
        sums = torch.cat((torch.zeros(1).double(), ordered.cumsum(0)))
        for _ in range(_ROUNDS):
            ends = torch.searchsorted(ordered, (means[1:] + means[:-1]) / 2, right=True)
            ends = torch.cat((torch.zeros(1).long(), ends, torch.tensor([ordered.numel()])))
            count = ends.diff()
            means = (sums[ends].diff()[count > 0] / count[count > 0]).unique()
        entries: Tensor = means.to(values.dtype).unique()
        return entries[_nearest(values, entries).unique()]

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """Entries of the tables."""
        which = self._tables(places)
        codes = load_stream(tensors["values"], self.bits, which.numel()).long()
        return tensors["table"].to(dtype)[which, codes]

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """None: what is near depends on the values."""
        return torch.tensor(float("inf"))

    def take(
        self, tensors: Mapping[str, Tensor], slots: Tensor, rows: Tensor
    ) -> dict[str, Tensor] | None:
        """Codes of the slots, and tables of the rows where these have their own."""
        if self.rows > 1:
            return None
        table = tensors["table"][rows] if self.rows else tensors["table"]
        return {"values": take_stream(tensors["values"], self.bits, slots), "table": table}

    def cast(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """With entries in that dtype."""
        return {**tensors, "table": tensors["table"].to(dtype)}

    def check_values(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], slots: int
    ) -> None:
        """Return if sizes are right and entries finite.

        Raises:
            Reject: they are not.
        """
        sizes = {
            "values": (stream_bytes(slots, self.bits),),
            "table": (self._count(shape[0]), 2**self.bits),
        }
        for name, size in sizes.items():
            if tensors[name].shape != size:
                raise Reject(
                    f"{name} has shape {tuple(tensors[name].shape)}, {list(size)} is needed"
                )
        if not bool(tensors["table"].isfinite().all()):
            raise Reject("table holds a value that is not finite")

    def coding(self, dtype: torch.dtype) -> Coding:
        """A place in the table of its rows."""
        return Coding(self.bits, "table", table_rows=self.rows)

    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """So many bits a slot, rounded up to bytes, and the tables."""
        import sympy

        from sparsecompile.formats.symbols import n, slots

        tables = sympy.ceiling(n / self.rows) if self.rows else 1
        return 8 * (sympy.ceiling(self.bits * slots / 8) + tables * 2**self.bits * dtype.itemsize)

    def _count(self, rows: int) -> int:
        """How many tables so many rows have."""
        return -(-rows // self.rows) if self.rows else 1

    def _tables(self, places: Places) -> Tensor:
        """Which table every slot's row has: `[slots]` int64."""
        rows = places.rows.clamp(max=max(places.shape[0] - 1, 0))
        return rows // self.rows if self.rows else torch.zeros_like(rows)


def _nearest(values: Tensor, entries: Tensor) -> Tensor:
    """Which of some ascending entries is nearest to every value, in float64."""
    between = (entries[1:].double() + entries[:-1].double()) / 2
    return torch.bucketize(values.double(), between)


COMPONENTS = (Codebook(),)
