"""Names of formats and decompositions in nodes of graphs, whose arguments are plain data."""

from __future__ import annotations

from sparsecompile.errors import Reject
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.packed import Format

_FORMATS: dict[str, Format] = {}
_DECOMPOSITIONS: dict[str, Decomposition] = {}


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


def remember_decomposition(decomposition: Decomposition) -> str:
    """The name under which `decomposition_of` finds one: its own, unless another has it."""
    name = str(decomposition)
    if _DECOMPOSITIONS.setdefault(name, decomposition) != decomposition:
        name = f"{name} of {type(decomposition).__module__}"
        _DECOMPOSITIONS[name] = decomposition
    return name


def decomposition_of(name: str) -> Decomposition:
    """The decomposition that a node names.

    Raises:
        Reject: it names another thing: how a weight was packed in the model.
    """
    if name not in _DECOMPOSITIONS:
        raise Reject(f"the weight is dense, not packed as {name}")
    return _DECOMPOSITIONS[name]
