"""Expression: a weight that is a sum, a product or a stack of others, each in its own format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from sparsecompile.formats.packed import Packed

T = TypeVar("T")
U = TypeVar("U")
Shape = tuple[int, ...]


class Expression(ABC, Generic[T]):
    """A weight made of others: `sum(n_m[2:4]/float, product(dense/float, dense/float))`.

    Only its leaves are stored, and only they need kernels. A leaf holds a `Packed`; or what stands
    for one: a `Format` in a text, a dense tensor where a weight was just split, a weight of a
    model. What is said of shapes, dtypes, bytes and values holds where those have them.
    """

    @abstractmethod
    def leaves(self) -> tuple[T, ...]:
        """What the leaves hold, in order."""

    @abstractmethod
    def map(self, change: Callable[[T], U]) -> Expression[U]:
        """The same expression of something else, leaf by leaf in order."""

    def of(self, leaves: Iterable[U]) -> Expression[U]:
        """The same expression of these, in the order of `leaves`."""
        rest = iter(leaves)
        return self.map(lambda leaf: next(rest))

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Of the dense weight.

        Raises:
            ValueError: the parts' do not go together.
        """

    @abstractmethod
    def evaluate(self, leaf: Callable[[T], Tensor]) -> Tensor:
        """The definition, in float32.

        Args:
            leaf: gives the value of what a leaf holds.
        """

    @abstractmethod
    def rows(self, rows: Tensor) -> Tensor:
        """Rows `[r]` int64 of the dense weight, float32, without unpacking what is not needed."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the dense weight.

        Raises:
            ValueError: leaves have several.
        """
        first, *others = dict.fromkeys(leaf.dtype for leaf in self._held())
        if others:
            raise ValueError(f"parts are {first} and {others[0]}: one dtype is needed")
        return first  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes of all leaves."""
        return sum(leaf.nbytes for leaf in self._held())

    @property
    def exact(self) -> bool:
        """Whether no leaf rounded anything of the part that it was packed from.

        That the parts make the weight is promised by what split it: `Decomposition.exact`.
        """
        return all(leaf.exact for leaf in self._held())

    def unpack(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense weight: computed in float32, then rounded to `dtype`, by default its own."""
        return self.evaluate(_unpacked).to(dtype or self.dtype)

    def _held(self) -> tuple[Any, ...]:
        return self.leaves()


@dataclass(frozen=True)
class Leaf(Expression[T]):
    """A weight that is stored as it is.

    Attributes:
        packed: what is stored, or stands for it.
    """

    packed: T

    def leaves(self) -> tuple[T, ...]:
        """What it holds."""
        return (self.packed,)

    def map(self, change: Callable[[T], U]) -> Leaf[U]:
        """A leaf of something else."""
        return Leaf(change(self.packed))

    @property
    def shape(self) -> Shape:
        """`(n, k)`."""
        (held,) = self._held()
        return tuple(held.shape)

    def evaluate(self, leaf: Callable[[T], Tensor]) -> Tensor:
        """Its value."""
        return leaf(self.packed)

    def rows(self, rows: Tensor) -> Tensor:
        """Its rows."""
        (held,) = self._held()
        return held.rows(rows, torch.float32)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """What it holds."""
        return str(self.packed)


@dataclass(frozen=True)
class Compound(Expression[T]):
    """What is made of several.

    Attributes:
        parts: in order.

    Raises:
        ValueError: they are too few.
    """

    parts: tuple[Expression[T], ...]

    kind: ClassVar[str]
    least: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Count the parts."""
        if len(self.parts) < self.least:
            raise ValueError(f"a {self.kind} of {len(self.parts)}, not of {self.least} or more")

    def leaves(self) -> tuple[T, ...]:
        """Those of the parts."""
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def map(self, change: Callable[[T], U]) -> Expression[U]:
        """Part by part."""
        made: Any = type(self)
        return made(tuple(part.map(change) for part in self.parts))  # type: ignore[no-any-return]

    @property
    def shape(self) -> Shape:
        """What those of the parts make."""
        return self._join([part.shape for part in self.parts])

    def evaluate(self, leaf: Callable[[T], Tensor]) -> Tensor:
        """What the values of the parts make."""
        return self._compute([part.evaluate(leaf) for part in self.parts])

    def rows(self, rows: Tensor) -> Tensor:
        """Of all of it, unless a kind knows better."""
        return self.evaluate(_unpacked)[rows]

    def __str__(self) -> str:
        """`sum(n_m[2:4]/float, csr/float)`, which `expression_text.parse` reads."""
        return f"{self.kind}({', '.join(map(str, self.parts))})"

    @abstractmethod
    def _join(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of what parts of these shapes make."""

    @abstractmethod
    def _compute(self, values: Sequence[Tensor]) -> Tensor:
        """What these values of parts make."""

    def _only(self, shapes: Sequence[Shape]) -> Shape:
        first, *others = dict.fromkeys(shapes)
        if others:
            both = f"{_text(first)} and {_text(others[0])}"
            raise ValueError(f"a {self.kind} of {both}: one shape is needed")
        return first


class Sum(Compound[T]):
    """`parts[0] + parts[1] + ...`, of one shape."""

    kind = "sum"

    def _join(self, shapes: Sequence[Shape]) -> Shape:
        return self._only(shapes)

    def _compute(self, values: Sequence[Tensor]) -> Tensor:
        total, *others = values
        for value in others:
            total = total + value
        return total

    def rows(self, rows: Tensor) -> Tensor:
        """The sum of those of the parts."""
        return self._compute([part.rows(rows) for part in self.parts])


class Product(Compound[T]):
    """`parts[0] @ parts[1] @ ...`, such as `U V` of `[n, r]` and `[r, k]`."""

    kind = "product"

    def _join(self, shapes: Sequence[Shape]) -> Shape:
        left, *others = shapes
        for right in others:
            if (len(left), len(right)) != (2, 2) or left[1] != right[0]:
                both = f"{_text(left)} and {_text(right)}"
                raise ValueError(f"a product of {both}: n x r and r x k are needed")
            left = (left[0], right[1])
        return left

    def _compute(self, values: Sequence[Tensor]) -> Tensor:
        left, *others = values
        for right in others:
            left = left @ right
        return left

    def rows(self, rows: Tensor) -> Tensor:
        """Of the first factor alone."""
        first, *others = self.parts
        return self._compute([first.rows(rows), *(part.evaluate(_unpacked) for part in others)])


class Stack(Compound[T]):
    """`[parts[0], parts[1], ...]` `[e, n, k]`, such as the weights of experts."""

    kind, least = "stack", 1

    def _join(self, shapes: Sequence[Shape]) -> Shape:
        return (len(shapes), *self._only(shapes))

    def _compute(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(values))


PackedExpr: TypeAlias = Expression[Packed]
"""A weight as it is packed."""


def _unpacked(leaf: Any) -> Tensor:
    return leaf.unpack(torch.float32)  # type: ignore[no-any-return]


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
