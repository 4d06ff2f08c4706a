"""Budget: what all weights may cost together, and how it is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparsecompile.errors import OptionError

UNITS = ("density", "bytes", "milliseconds")


@dataclass(frozen=True)
class Budget:
    """A limit.

    Attributes:
        unit: `density`, values that are kept; `bytes`, of packed weights; or `milliseconds` of
            their linears, one after the other, measured on this machine.
        share: of what the dense weights cost.
    """

    unit: str
    share: float

    @classmethod
    def of(cls, given: object) -> Budget:
        """From a mapping such as `{"bytes": 0.55}`.

        Raises:
            OptionError: anything else.
        """
        if isinstance(given, Mapping) and len(given) == 1:
            ((unit, share),) = given.items()
            if unit in UNITS and isinstance(share, (int, float)) and 0 < share <= 1:
                return cls(unit, float(share))
        raise OptionError(
            "budget",
            "the budget must be a share, above 0 and at most 1, of what the dense weights cost, "
            f'such as {{"bytes": 0.55}}; known: {", ".join(UNITS)}; not {given!r}',
        )


@dataclass(frozen=True)
class Option:
    """What a weight may become: what it then costs, and what is lost."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Spent:
    """An option for every weight.

    Attributes:
        chosen: their numbers.
        cost: of all.
        loss: of all.
        price: loss that the last unit of cost has saved; others were worth less.
        frontier: cost and loss of the best choices for every budget, the cheapest first.
    """

    chosen: tuple[int, ...]
    cost: float
    loss: float
    price: float
    frontier: tuple[Option, ...]


@dataclass(frozen=True)
class Allocation:
    """What a budget was spent on.

    Attributes:
        unit: of costs.
        limit: what all weights may cost.
        cost: what they cost.
        loss: the sum of what the held batch lost by each weight alone.
        price: what one more unit of cost would have saved, about.
        dense: what they cost dense.
        uniform: cost and loss of every pattern that all weights could have.
        frontier: cost and loss of the best choices for every budget, the cheapest first.
        options: of every weight, cost and loss of its patterns.
        patterns: of every weight, that which it got.
    """

    unit: str
    limit: float
    cost: float
    loss: float
    price: float
    dense: float
    uniform: Mapping[str, Option]
    frontier: tuple[Option, ...]
    options: Mapping[str, Mapping[str, Option]]
    patterns: Mapping[str, str]


def spend(options: Sequence[Sequence[Option]], limit: float) -> Spent | None:
    """The options with the smallest loss, as a sum, whose cost is at most the limit.

    By Lagrange multipliers: at every price each weight takes what is best for `loss + price *
    cost`, and the price falls until the limit is reached; what is then left goes to whatever still
    fits, the best first. None where the cheapest of all cost more than the limit.
    """
    hulls = [_hull(choices) for choices in options]
    chosen = [hull[0] for hull in hulls]
    first = [choices[i] for choices, i in zip(options, chosen, strict=True)]
    cost, loss = sum(option.cost for option in first), sum(option.loss for option in first)
    if cost > limit * (1 + 1e-12):
        return None
    steps = []
    for weight, hull in enumerate(hulls):
        for before, after in pairwise(hull):
            old, new = options[weight][before], options[weight][after]
            more, less = new.cost - old.cost, old.loss - new.loss
            steps.append((less / more, weight, after, more, less))
    frontier, price, open_ = [Option(cost, loss)], 0.0, set(range(len(options)))
    for worth, weight, after, more, less in sorted(steps, key=lambda step: -step[0]):
        last = frontier[-1]
        frontier.append(Option(last.cost + more, last.loss - less))
        if weight in open_ and cost + more <= limit * (1 + 1e-12):
            chosen[weight], price = after, worth
            cost, loss = cost + more, loss - less
        else:
            open_.discard(weight)
    return Spent(tuple(chosen), cost, loss, price, tuple(frontier))


def _hull(options: Sequence[Option]) -> list[int]:
    """Numbers of the options that are best at some price, the cheapest first."""
    hull: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: (options[i].cost, options[i].loss)):
        if hull and options[i].loss >= options[hull[-1]].loss:
            continue
        while len(hull) > 1 and _slope(options, hull[-2], i) <= _slope(options, *hull[-2:]):
            hull.pop()
        hull.append(i)
    return hull


def _slope(options: Sequence[Option], before: int, after: int) -> float:
    """Loss that rises with cost: below zero, and steeper where more is saved."""
    more = options[after].cost - options[before].cost
    return (options[after].loss - options[before].loss) / more if more else float("-inf")
