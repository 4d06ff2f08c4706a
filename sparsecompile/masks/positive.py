"""The check of parameters that are numbers of tokens."""

from __future__ import annotations

import dataclasses

from sparsecompile.errors import OptionError
from sparsecompile.masks.pattern import OPTION, MaskPattern


def check_positive(pattern: MaskPattern, *, but: tuple[str, ...] = ()) -> None:
    """Return if the integers of a pattern are 1 or more.

    Args:
        pattern: a dataclass.
        but: names of those that may be 0.

    Raises:
        OptionError: one is less.
    """
    for field in dataclasses.fields(pattern):  # type: ignore[arg-type]
        value, least = getattr(pattern, field.name), int(field.name not in but)
        if value < least:
            name = field.name.rstrip("_")
            raise OptionError(
                OPTION, f"{pattern.family}: {name} is {value}; it needs {least} or more"
            )
