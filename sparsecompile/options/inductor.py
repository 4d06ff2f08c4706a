"""Options for Inductor, seen to before there is a graph to compile."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sparsecompile.errors import OptionError


def check_options(options: Mapping[str, Any]) -> None:
    """See that Inductor knows its options, before there is a graph to compile.

    Args:
        options: as a user gives them.

    Raises:
        OptionError: one that Inductor does not have.
    """
    if not options:
        return
    from torch._inductor import config

    # Unlike `torch._inductor.list_options`, with aliases.
    known: Any = config._config  # type: ignore[attr-defined]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(str(name).replace("-", "_"), known, 3)
            hint = f"did you mean {', '.join(map(repr, close))}? " if close else ""
            raise OptionError(
                "inductor",
                f"Inductor has no option {name!r}; {hint}"
                "torch._inductor.list_options() has all of them",
            )
