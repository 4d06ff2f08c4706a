"""C++ text that generated files and the native library are made of."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read(name: str) -> str:
    """Text of a file in this folder or its rooms: `prelude.h`, `strips/layout/prepack.h`."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def room(name: str) -> tuple[str, ...]:
    """Texts of all files in a room, headers first, by their names."""
    found = (file.name for file in files(__name__).joinpath(name).iterdir())
    ordered = sorted(found, key=lambda file: (not file.endswith(".h"), file))
    return tuple(read(f"{name}/{file}") for file in ordered if file.endswith((".h", ".cpp")))
