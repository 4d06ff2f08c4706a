"""Recipes of lossy changes: one for every linear, or patterns of weight names to recipes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeVar

from sparsecompile.errors import OptionError, Reject

R = TypeVar("R")
_FORMATS = (
    (r"(\d+):(\d+)", "n_m[{}:{}]"),
    (r"unstructured", "bitmap"),
    (r"block\((\d+),(\d+)\)", "block[{}x{}]"),
)
_NUMBERS = re.compile(r"\{(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\}")


def recipes_of(option: str, given: object, *, functions: bool = False) -> Mapping[str, Any]:
    """Patterns of weight names and their recipes, the first that matches a name counts.

    Args:
        option: name of the option, such as `prune`.
        given: its value: None, a recipe, or a mapping from patterns to recipes.
        functions: whether recipes may be functions, too; then names are those of modules.

    Raises:
        OptionError: neither of these. What recipes say is not looked at.
    """
    if given is None:
        return {}

    def is_recipe(value: object) -> bool:
        return isinstance(value, str) or (functions and callable(value))

    found = {"*": given} if is_recipe(given) else given
    if isinstance(found, Mapping):
        wrong = [p for p, recipe in found.items() if not (isinstance(p, str) and is_recipe(recipe))]
        if not wrong:
            return found
    kinds = (
        "patterns of module names to recipes (strings, or functions)"
        if functions
        else "patterns of weight names to recipes (strings both)"
    )
    raise OptionError(
        option, f"option {option!r} must be a recipe or a mapping from {kinds}, not {given!r}"
    )


def low_rank_recipes(given: object) -> Mapping[str, Any]:
    """Patterns of weight names and the ranks asked for, from the value of option `low_rank`.

    Raises:
        OptionError: neither a number or `{"energy": ...}`, nor patterns to such. Whether these
            numbers can be used is not looked at.
    """

    def is_recipe(value: object) -> bool:
        energy = isinstance(value, Mapping) and set(value) == {"energy"}
        return energy or isinstance(value, (int, float))

    found = {} if given is None else {"*": given} if is_recipe(given) else given
    if isinstance(found, Mapping) and all(
        isinstance(pattern, str) and is_recipe(recipe) for pattern, recipe in found.items()
    ):
        return found
    raise OptionError(
        "low_rank",
        "option 'low_rank' must be a share of the rank such as 0.25, {\"energy\": 0.99}, or a "
        f"mapping from patterns of weight names to these, not {given!r}",
    )


def recipe_for(option: str, recipes: Mapping[str, R], names: Collection[str]) -> R:
    """The recipe of the first pattern that means a weight.

    Args:
        option: name of the option, such as `prune`.
        recipes: patterns and their recipes.
        names: of the parameters that the weight is made of.

    Raises:
        Reject: none does.
    """
    for pattern, recipe in recipes.items():
        if any(matches(pattern, name) for name in names):
            return recipe
    raise Reject(f"no pattern of options[{option!r}] matches {', '.join(names)}")


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern means a weight: by its own name or by that of its module.

    Such as `lm_head.weight` or `lm_head`. Besides the signs of `fnmatch`, numbers may stand as in
    reports, `layers.{0-3,7}.*`, and `*.` at the beginning may stand for nothing. After `re:` stands
    a regular expression for the beginning of either.

    Raises:
        OptionError: what stands there is none.
    """
    spellings = (name, name.rpartition(".")[0])
    if pattern.startswith("re:"):
        try:
            return any(re.match(pattern[3:], text) for text in spellings)
        except re.error as error:
            raise OptionError(
                "pattern", f"{pattern!r} holds no regular expression: {error}"
            ) from error
    return any(fnmatchcase(text, plain) for plain in _plain(pattern) for text in spellings)


@lru_cache
def _plain(pattern: str) -> tuple[str, ...]:
    """The patterns of `fnmatch` that one stands for."""
    patterns = tuple(_numbered(pattern))
    return patterns + tuple(p.removeprefix("*.") for p in patterns if p.startswith("*."))


def _numbered(pattern: str) -> Iterator[str]:
    found = _NUMBERS.search(pattern)
    if found is None:
        yield pattern
        return
    for run in found[1].split(","):
        first, _, last = run.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield from _numbered(f"{pattern[: found.start()]}{number}{pattern[found.end() :]}")


def unmatched(
    recipes: Mapping[str, Mapping[str, Any]], names: Collection[str], what: str = "weight matrix"
) -> dict[str, str]:
    """Options whose patterns match no name, and what to say of the first such pattern of each.

    Args:
        recipes: patterns and their recipes, by option.
        names: of weights, or of something else.
        what: they are names of.
    """
    found: dict[str, str] = {}
    for option, given in recipes.items():
        for pattern in given:
            # What is asked of every weight is right for a model without one.
            if pattern != "*" and not any(matches(pattern, name) for name in names):
                found.setdefault(
                    option,
                    f"pattern {pattern!r} of option {option!r} matches no {what}"
                    f"{_hint(pattern, names)}",
                )
    return found


def check_patterns(
    recipes: Mapping[str, Mapping[str, Any]], names: Collection[str], what: str = "weight matrix"
) -> None:
    """Return if every pattern means a weight of the model.

    Args:
        recipes: patterns and their recipes, by option.
        names: of all weights of the model, or of something else.
        what: they are names of.

    Raises:
        OptionError: one means none; it says which names are near.
    """
    for option, message in unmatched(recipes, names, what).items():
        raise OptionError(option, message)


def _hint(pattern: str, names: Collection[str]) -> str:
    """`; did you mean 'lm_head'?`, or some of the names there are."""
    wanted = pattern.strip("*.?").removesuffix(".weight")
    length = wanted.count(".") + 1
    near: dict[str, str] = {}
    modules = [name.removesuffix(".weight") for name in names]
    for module in modules:
        parts = module.split(".")
        for i in range(max(len(parts) - length + 1, 1)):
            near.setdefault(".".join(parts[i : i + length]), module)
    close = [near[text] for text in difflib.get_close_matches(wanted, near)]
    if close:
        return f"; did you mean {' or '.join(map(repr, dict.fromkeys(close)))}?"
    known = ", ".join(map(repr, modules[:3]))
    more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
    return f"; known: {known}{more}" if modules else ""


def format_name(name: str) -> str:
    """The name of a format that may be spelt as a recipe of `prune` is, without the share.

    `2:4` is `n_m[2:4]`, `unstructured` is `bitmap`, `block(16,16)` is `block[16x16]`.
    """
    structure, slash, codec = name.replace(" ", "").partition("/")
    for pattern, known in _FORMATS:
        if found := re.fullmatch(pattern, structure):
            return known.format(*found.groups()) + slash + codec
    return name
