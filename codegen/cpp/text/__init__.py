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


def named(name: str) -> tuple[str, ...]:
    """Texts of all files of a name: that of this folder first, then those of its rooms."""
    rooms = sorted(each.name for each in files(__name__).iterdir() if each.is_dir())
    found = [name, *(f"{room}/{name}" for room in rooms)]
    return tuple(read(each) for each in found if files(__name__).joinpath(each).is_file())
