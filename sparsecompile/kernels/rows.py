"""Row expressions: what stands between two linears of a region, computed row by row in float32.

An expression is a tree of frozen nodes, so that equal ones are one. `evaluate` defines what each
computes; code generation writes the same in its language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsecompile.kernels.epilogue import STEPS

FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "square": torch.square,
    "exp": torch.exp,
    "rsqrt": torch.rsqrt,
    "sqrt": torch.sqrt,
    **{step.name: step.apply for step in STEPS.values() if not step.has_operand},
}
"""What `Apply` may apply, by name."""
REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1, keepdim=True),
    "amax": lambda x: x.amax(-1, keepdim=True),
}
"""What `Reduce` makes of the columns of a row, by name."""


@dataclass(frozen=True)
class Columns:
    """Some columns of a source `[m, width]`, or of a vector `[width]` that all rows share.

    Attributes:
        source: its number among the sources of a region.
        first: the first of the columns.
        is_vector: whether all rows share it.
    """

    source: int
    first: int = 0
    is_vector: bool = False


@dataclass(frozen=True)
class Constant:
    """A number."""

    value: float


@dataclass(frozen=True)
class Apply:
    """A function of `FUNCTIONS`, column by column."""

    name: str
    args: tuple[Expression, ...]


@dataclass(frozen=True)
class Reduce:
    """One number a row, by a function of `REDUCTIONS`.

    Attributes:
        name: of the function.
        of: what is reduced.
        width: how many columns that has.
    """

    name: str
    of: Expression
    width: int


Expression = Columns | Constant | Apply | Reduce


def is_number(expression: Expression) -> bool:
    """Whether it has one value for a row, not one for every column."""
    if isinstance(expression, Apply):
        return all(map(is_number, expression.args))
    return not isinstance(expression, Columns)


def shifted(expression: Expression, by: int) -> Expression:
    """The same of columns further right."""
    if isinstance(expression, Columns):
        return replace(expression, first=expression.first + by)
    if isinstance(expression, Apply):
        return replace(expression, args=tuple(shifted(each, by) for each in expression.args))
    return expression


def renumbered(expression: Expression, base: int) -> Expression:
    """Sources -1, -2, ... become those from `base` on."""
    if isinstance(expression, Columns) and expression.source < 0:
        return replace(expression, source=base - 1 - expression.source)
    if isinstance(expression, Apply):
        return replace(expression, args=tuple(renumbered(e, base) for e in expression.args))
    if isinstance(expression, Reduce):
        return replace(expression, of=renumbered(expression.of, base))
    return expression


def walk(expression: Expression) -> Iterator[Expression]:
    """All expressions in one, each after those that it is made of."""
    if isinstance(expression, Apply):
        for each in expression.args:
            yield from walk(each)
    elif isinstance(expression, Reduce):
        yield from walk(expression.of)
    yield expression


def evaluate(expression: Expression, sources: Sequence[Tensor], width: int) -> Tensor:
    """The definition: `[m, width]`, or `[m, 1]` of a number, in the dtype of the sources.

    Args:
        expression: what to compute.
        sources: `[m, any]` or `[any]`, by their numbers; float64 for a reference.
        width: how many columns.
    """
    if isinstance(expression, Columns):
        of = sources[expression.source]
        return of[..., expression.first : expression.first + width]
    if isinstance(expression, Constant):
        return torch.tensor(expression.value, dtype=torch.float64)
    if isinstance(expression, Reduce):
        inner = evaluate(expression.of, sources, expression.width)
        return REDUCTIONS[expression.name](inner.expand(*inner.shape[:-1], expression.width))
    args = [evaluate(each, sources, width) for each in expression.args]
    return FUNCTIONS[expression.name](*args)
