"""Texts of expressions, read back: `sum(n_m[2:4]/float, csr/float)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sparsecompile.formats.expression import Compound, Expression, Leaf, Product, Stack, Sum

T = TypeVar("T")
_KINDS: dict[str, type[Compound[Any]]] = {kind.kind: kind for kind in (Sum, Product, Stack)}


def parse(text: str, leaf: Callable[[str], T]) -> Expression[T]:
    """Read what `str` of an expression gives.

    Args:
        text: `sum(n_m[2:4]/float, csr/float)`; without a kind it is a leaf.
        leaf: reads what a leaf holds, such as `Registry.format`.

    Raises:
        ValueError: brackets do not match, there is no such kind, or it has too few parts.
    """
    found = re.fullmatch(r"(\w+)\((.*)\)", text.strip(), re.DOTALL)
    if found is None:
        return Leaf(leaf(text.strip()))
    if found[1] not in _KINDS:
        raise ValueError(f"no expression is called {found[1]!r}; known: {', '.join(_KINDS)}")
    return _KINDS[found[1]](tuple(parse(part, leaf) for part in _listed(found[2])))


def _listed(text: str) -> Iterator[str]:
    """What stands between the commas outside of brackets.

    Raises:
        ValueError: brackets do not match.
    """
    depth, begin = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth < 0:
            break
        if letter == "," and not depth:
            yield text[begin:place]
            begin = place + 1
    if depth:
        raise ValueError(f"brackets do not match in {text!r}")
    if text.strip():
        yield text[begin:]
