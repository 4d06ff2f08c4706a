"""Recipes of lossy changes: one for every linear, or patterns of weight names to recipes."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecompile.errors import OptionError


def recipes_of(option: str, given: object) -> Mapping[str, str]:
    """Patterns of weight names and their recipes, the first that matches a name counts.

    Args:
        option: name of the option, such as `prune`.
        given: its value: None, a recipe, or a mapping from patterns to recipes.

    Raises:
        OptionError: neither of these. What recipes say is not looked at.
    """
    if given is None:
        return {}
    found = {"*": given} if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise _wrong(option, given)
    for pattern, recipe in found.items():
        if not isinstance(pattern, str) or not isinstance(recipe, str):
            raise _wrong(option, given)
    return found


def _wrong(option: str, given: object) -> OptionError:
    return OptionError(
        option,
        f"option {option!r} must be a recipe or a mapping from patterns of weight names to "
        f"recipes (strings both), not {given!r}",
    )
