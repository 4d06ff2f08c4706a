"""Stored: a packed weight that replaces a dense one in a model, with one copy of it in memory."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from sparsecompile.codecs.float import Float
from sparsecompile.errors import Reject, SparseCompileError
from sparsecompile.formats.expression import Expression, Leaf, PackedExpr
from sparsecompile.formats.packed import Format, Packed

_AT_ONCE = 1 << 20
"""Values that are unpacked together: lists of places take eight bytes each."""


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a layout that a kernel reads.

    Attributes:
        layout: `[bytes]` uint8.
        kernel: key of a kernel that reads it.
        first: the first of the rows; merged weights stand one above the other.
    """

    layout: Tensor
    kernel: int
    first: int


class Stored:
    """A packed weight of a model: its canonical tensors, or rows of a kernel's layout.

    It starts with canonical tensors. Once a graph has made a layout of them it adopts that and lets
    them go, so that there is one copy of the weight; what they were can be had from the layout.

    Args:
        packed: the weight.

    Attributes:
        handle: a number by which the ops of `sparsecompile.weights.stored_ops` find it in this
            process.
    """

    def __init__(self, packed: Packed) -> None:
        self.format: Format = packed.format
        self.shape = packed.shape
        self.dtype = packed.dtype
        self.slots = packed.slots
        self.exact = packed.exact
        self._home: Packed | Part = packed
        self.handle = next(_HANDLES)
        _BY_HANDLE[self.handle] = self

    def __deepcopy__(self, memo: object) -> Stored:
        """Itself: it stands for one weight, which never changes."""
        return self

    @property
    def is_adopted(self) -> bool:
        """Whether a kernel's layout has taken the place of the canonical tensors."""
        return isinstance(self._home, Part)

    def adopt(self, part: Part) -> None:
        """Keep rows of a layout in place of the canonical tensors, or of another layout.

        Args:
            part: as many rows as this weight has, packed from it.
        """
        self._home = part

    def packed(self) -> Packed:
        """The canonical tensors, made anew where a layout has taken their place.

        They unpack to the same weight; values that were rounded to zero may have lost their slots.
        """
        home = self._home
        if isinstance(home, Packed):
            return home
        exact = self.dtype if self.format.codec.lossless else torch.float32
        return replace(self.format.pack(self.unpack(exact), self.exact), dtype=self.dtype)

    def to(self, dtype: torch.dtype) -> Stored:
        """For a weight of another dtype; see `Packed.to`. Floats where the codec is of no use."""
        packed = self.packed()
        try:
            return Stored(packed.to(dtype))
        except Reject:
            format = Format(packed.format.structure, Float())
            return Stored(format.pack(packed.unpack().to(dtype)))

    def unpack(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense weight `[n, k]`, values rounded to `dtype`, by default the weight's own."""
        dtype, home, (n, k) = dtype or self.dtype, self._home, self.shape
        if isinstance(home, Part):
            like = torch.empty(0, dtype=self._native(dtype))
            op = torch.ops.sparsecompile.unpack
            return op(home.layout, like, n, k, home.kernel, home.first).to(dtype)  # type: ignore[no-any-return]
        dense = torch.empty(self.shape, dtype=dtype)
        step = max(1, _AT_ONCE // max(k, 1))
        for first in range(0, n, step):
            rows = torch.arange(first, min(first + step, n))
            dense[rows] = home.rows(rows, dtype)
        return dense

    def rows(self, rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Rows of the dense weight, without unpacking the others.

        Args:
            rows: int32 or int64, any shape.
            dtype: to which values are rounded, by default the weight's own.

        Returns:
            `[*rows.shape, k]`.

        Raises:
            IndexError: a row that does not exist.
        """
        dtype, home, (n, k) = dtype or self.dtype, self._home, self.shape
        if isinstance(home, Part):
            like = torch.empty(0, dtype=self._native(dtype))
            op = torch.ops.sparsecompile.unpack_rows
            return op(home.layout, rows, like, n, k, home.kernel, home.first).to(dtype)  # type: ignore[no-any-return]
        if rows.numel() and not (0 <= int(rows.min()) <= int(rows.max()) < n):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {n}")
        return home.rows(rows.reshape(-1).long(), dtype).view(*rows.shape, k)

    def _native(self, dtype: torch.dtype) -> torch.dtype:
        """A dtype that a kernel of this weight unpacks to, from which `dtype` is one rounding."""
        return self.dtype if dtype == self.dtype else torch.float32


class StoredExpression:
    """A packed weight of a model that is an expression of others.

    Each of these goes its own way: graphs make layouts of them one by one.

    Args:
        expression: what it is.

    Attributes:
        handle: see `Stored`.

    Raises:
        ValueError: the shapes or dtypes of the parts do not go together.
    """

    def __init__(self, expression: Expression[Stored]) -> None:
        self.expression = expression
        self.shape, self.dtype = expression.shape, expression.dtype
        self.format: Expression[Format] = expression.map(lambda stored: stored.format)
        self.handle = next(_HANDLES)
        _BY_HANDLE[self.handle] = self

    def __deepcopy__(self, memo: object) -> StoredExpression:
        """Itself, as of a `Stored`."""
        return self

    def packed(self) -> PackedExpr:
        """The same expression of canonical tensors."""
        return self.expression.map(Stored.packed)

    def to(self, dtype: torch.dtype) -> StoredExpression:
        """For a weight of another dtype, part by part."""
        return StoredExpression(self.expression.map(lambda stored: stored.to(dtype)))

    def unpack(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense weight, values rounded to `dtype`, by default the weight's own."""
        return self.expression.unpack(dtype)

    def rows(self, rows: Tensor) -> Tensor:
        """Rows of the dense weight `[n, k]`: `[*rows.shape, k]`."""
        found = self.expression.rows(rows.reshape(-1).long())
        return found.to(self.dtype).view(*rows.shape, -1)


AnyStored: TypeAlias = Stored | StoredExpression


def store(packed: Packed | PackedExpr) -> AnyStored:
    """A packed weight as models hold it.

    Raises:
        ValueError: the shapes or dtypes of an expression's parts do not go together.
    """
    if isinstance(packed, Leaf):
        packed = packed.packed
    return Stored(packed) if isinstance(packed, Packed) else StoredExpression(packed.map(Stored))


def find_stored(handle: int) -> AnyStored:
    """The stored weight of a number.

    Raises:
        SparseCompileError: it is gone, or of another process.
    """
    found = _BY_HANDLE.get(handle)
    if found is None:
        raise SparseCompileError(
            f"there is no packed weight {handle} in this process: pass the model's own parameters"
        )
    return found


_HANDLES: Iterator[int] = itertools.count(1)
_BY_HANDLE: weakref.WeakValueDictionary[int, AnyStored] = weakref.WeakValueDictionary()
