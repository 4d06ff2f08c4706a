"""Texts of patterns, such as `causal & window(256)` and `around(256) + global(16)`."""

from __future__ import annotations

import difflib
from functools import reduce

from sparsecompile.errors import OptionError
from sparsecompile.masks.pattern import OPTION, MaskPattern
from sparsecompile.registry import Registry


def pattern_of(text: str, registry: Registry) -> MaskPattern:
    """The pattern that a text names.

    `&` is what both keep and binds before `+`, or `|`, what one of them keeps; parentheses do as
    usual. `per_head(a;b)` has a pattern for each head.

    Raises:
        OptionError: the text is none.
    """

    def read(text: str) -> MaskPattern:
        return pattern_of(text, registry)

    for signs, combine in (("+|", MaskPattern.__or__), ("&", MaskPattern.__and__)):
        parts = split(text, signs)
        if len(parts) > 1:
            return reduce(combine, map(read, parts))
    text = text.strip()
    family, _, parameters = text.partition("(")
    if parameters and not family:
        return read(parameters[:-1])
    families = {pattern.family: pattern for pattern in registry.all(MaskPattern)}
    if family not in families:
        close = difflib.get_close_matches(family, families, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(families)}"
        raise OptionError(OPTION, f"no mask is called {family!r}; {hint}")
    try:
        return families[family].parse(parameters[:-1].replace(" ", ""), read)
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(OPTION, f"no mask {text!r}: {error}") from error


def split(text: str, signs: str) -> list[str]:
    """The parts between signs that no parentheses are around.

    Raises:
        OptionError: parentheses do not match.
    """
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
        if sign in signs and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    if depth:
        raise OptionError(OPTION, f"no mask {text!r}: its parentheses do not match")
    return parts
