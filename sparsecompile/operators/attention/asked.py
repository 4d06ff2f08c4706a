"""Masks that a user asks for: from what the option says to patterns, and their names in graphs."""

from __future__ import annotations

import difflib
import hashlib
import uuid
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.pattern import OPTION, All, MaskPattern
from sparsecompile.masks.predicate import Function, Predicate
from sparsecompile.masks.text import pattern_of
from sparsecompile.registry import default_registry

Asked = MaskPattern | Choice
_ANY_LENGTH = Grid(1, 1 << 40)
_ASKED: dict[str, Asked] = {}
_NAMES: dict[Predicate, str] = {}


def asked_for(given: str | Function) -> Asked:
    """What is asked for.

    Args:
        given: the text of a pattern or a choice, or a predicate `mask_mod(b, h, q, kv)`.

    Raises:
        OptionError: it is none, or is made for so many keys.
    """
    if not isinstance(given, str):
        predicate = Predicate(given)
        predicate.keeps(*Grid(1, 1).places(1, 1))
        return predicate
    choices = {choice.family: choice for choice in default_registry().all(Choice)}
    family, _, parameters = given.strip().partition("(")
    if family in choices:
        try:
            return choices[family].parse(parameters.removesuffix(")"))
        except ValueError as error:
            raise OptionError(
                OPTION, f"no mask {given!r}: {error}; write for example {choices[family]}"
            ) from error
    close = difflib.get_close_matches(family, choices, 1)
    if close:
        raise OptionError(OPTION, f"no mask is called {family!r}; did you mean {close[0]!r}?")
    pattern = pattern_of(given, default_registry())
    pattern.check(_ANY_LENGTH)
    return pattern


def remember(asked: Asked) -> str:
    """The name under which `named` finds it: its text; of a predicate one of this process alone.

    Torch keeps compiled graphs from one process to the next, and sees names only.
    """
    text = name = str(asked)
    if isinstance(asked, Predicate):
        name = _NAMES.setdefault(asked, f"{text} {uuid.uuid4().hex}")
    _ASKED.update(dict.fromkeys((text, name, str(number_of(name))), asked))
    return name


def named(name: str) -> Asked:
    """What a node names, an op by its number, or a problem by its text."""
    return _ASKED[name]


def number_of(name: str) -> int:
    """What ops call it: 63 bits, the same in every process."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) >> 1


def for_sizes(pattern: MaskPattern, batch: int, heads: int) -> MaskPattern:
    """The pattern, which as a predicate tells entries and heads apart if what it returns does.

    Raises:
        OptionError: the predicate raises something.
    """
    if not isinstance(pattern, Predicate):
        return pattern
    kept = pattern.keeps(*Grid(1, 1).places(batch, heads))
    sizes = (1, 1, 1, 1, *kept.shape)[-4:]
    return replace(pattern, batch_size=sizes[0], head_count=sizes[1])


Ends = tuple[Tensor | None, Tensor | None]


def ends_of(asked: Asked, q: Tensor) -> Ends | None:
    """Where the keys of queries begin and end, if they are one interval.

    Args:
        asked: what is asked for.
        q: positions of queries, `[q]` int64.
    """
    if isinstance(asked, IntervalPattern):
        return asked.ends(q)
    if not isinstance(asked, All):
        return None
    found = [ends_of(part, q) for part in asked.parts]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    lows, highs = ([end for end in each if end is not None] for each in zip(*known, strict=True))
    return (
        reduce(torch.maximum, lows) if lows else None,
        reduce(torch.minimum, highs) if highs else None,
    )
