"""Names of formats in nodes of graphs, whose arguments are plain data."""

from __future__ import annotations

from sparsecompile.formats.packed import Format

_FORMATS: dict[str, Format] = {}


def remember_format(format: Format) -> str:
    """The name under which `format_of` finds a format: its own, unless another has it."""
    name = str(format)
    if _FORMATS.setdefault(name, format) != format:
        name = f"{name} of {type(format.structure).__module__}, {type(format.codec).__module__}"
        _FORMATS[name] = format
    return name


def format_of(name: str) -> Format:
    """The format that a node names."""
    return _FORMATS[name]
