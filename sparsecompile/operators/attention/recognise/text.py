"""Conditions in words: `causal & window(256) & padding`."""

from __future__ import annotations

from sparsecompile.operators.attention.recognise.conditions import NEVER, Conditions
from sparsecompile.operators.attention.recognise.linear import Atom, Floor, Linear
from sparsecompile.operators.attention.recognise.term import Term


def text_of(conditions: Conditions, *, one_query: bool) -> str:
    """Texts of mask patterns where there are some, and where the first query stands.

    Args:
        conditions: what is kept.
        one_query: whether there is one query, so that no end can depend on it.
    """
    if conditions == NEVER:
        return "nothing"
    parts: list[str] = []
    offsets: list[Linear] = []
    lows, highs = set(conditions.lows), set(conditions.highs)
    for high in sorted(conditions.highs, key=_linear):
        low = next((low for low in sorted(lows, key=_linear) if _is_constant(high - low)), None)
        chunk = None if low is None else _chunk(low, high, one_query=one_query)
        if chunk is not None:
            size, offset = chunk
            parts.append(f"chunked({size})")
            offsets.append(offset)
        elif high.slope(-2) == 1 or (one_query and not _differs(high)):
            text, offset = _around(low, high)
            parts = [text, *parts]
            offsets.append(offset)
        else:
            continue
        highs.discard(high)
        lows.discard(low or high)
    for low in sorted(lows, key=_linear):
        is_window = low.slope(-2) == 1 and _is_constant(low.without(-2)) and low.constant <= 0
        parts.append(f"window({1 - low.constant})" if is_window else f"keys from {_linear(low)}")
    for high in sorted(highs, key=_linear):
        text = f"prefix({high.constant})" if _is_constant(high) else f"keys before {_linear(high)}"
        parts.append(text)
    parts += ["padding"] * bool(conditions.keys) + ["documents"] * bool(conditions.same)
    parts += ["some queries"] * bool(conditions.rows)
    moved = {_linear(offset) for offset in offsets if offset != Linear()}
    return " & ".join(parts or ["full"]) + "".join(f", queries from {each}" for each in moved)


def _around(low: Linear | None, high: Linear) -> tuple[str, Linear]:
    """Ends that move along with the queries, and the position of the first."""
    offset = (high - 1).without(-2)
    if low is None:
        return "causal", offset
    size = (high - low).constant
    if offset == Linear(size // 2) and size % 2:
        return f"around({size // 2})", Linear()
    return f"causal & window({size})", offset


def _chunk(low: Linear, high: Linear, *, one_query: bool) -> tuple[int, Linear] | None:
    """The size of a chunk that begins where positions are a multiple of it, and the first query's.

    That is, where among the keys the first query stands, for all entries alike.
    """
    size = (high - low).constant
    for atom, factor in low.atoms:
        if isinstance(atom, Floor) and factor == size == atom.step:
            offset = low - Linear.of(atom) * size + atom.inner.without(-2)
            moves = atom.inner.slope(-2) == 1 or one_query
            if moves and not _differs(offset) and not offset.depends_on(-2):
                return size, offset
    return None


def _is_constant(linear: Linear) -> bool:
    return linear == Linear(linear.constant)


def _differs(linear: Linear) -> bool:
    """Whether it does from entry to entry, or from head to head."""
    return linear.depends_on(-3) or linear.depends_on(-4)


def _linear(linear: Linear) -> str:
    """`3 + query - l_lengths_`."""
    slopes = zip(("entry", "head", "query", "key"), linear.slopes, strict=True)
    factors = [*slopes, *sorted((_atom(atom), factor) for atom, factor in linear.atoms)]
    texts = [_product(name, factor) for name, factor in factors if factor]
    if linear.constant or not texts:
        texts.append(str(linear.constant))
    return " + ".join(texts).replace("+ -", "- ")


def _product(name: str, factor: int) -> str:
    return {1: name, -1: f"-{name}"}.get(factor, f"{factor} * {name}")


def _atom(atom: Atom) -> str:
    if isinstance(atom, Term):
        return atom.node.name
    if isinstance(atom, Floor):
        return f"({_linear(atom.inner)}) // {atom.step}"
    return f"|{_linear(atom.inner)}|"
