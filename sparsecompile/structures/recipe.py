"""What recipes of pruning say: `2:4`, `unstructured(0.8)`, `block(16,16,0.5)`."""

from __future__ import annotations

import re

from sparsecompile.errors import OptionError
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.bitmap import Bitmap
from sparsecompile.structures.block import Block
from sparsecompile.structures.n_m import NM


def parse_recipe(recipe: str) -> tuple[Structure, float | None]:
    """The structure and the share of zeros that a recipe asks for.

    Args:
        recipe: `2:4` or any n:m, `unstructured(0.8)`, or `block(16,16,0.5)`.

    Raises:
        OptionError: none of these.
    """
    text = recipe.replace(" ", "")
    try:
        if found := re.fullmatch(r"(\d+):(\d+)", text):
            return NM(int(found[1]), int(found[2])), None
        if found := re.fullmatch(r"unstructured\(([\d.]+)\)", text):
            return Bitmap(), _share(found[1])
        if found := re.fullmatch(r"block\((\d+),(\d+),([\d.]+)\)", text):
            return Block(int(found[1]), int(found[2])), _share(found[3])
    except ValueError as error:
        raise OptionError("prune", f"cannot prune to {recipe!r}: {error}") from error
    raise OptionError(
        "prune",
        f"cannot prune to {recipe!r}; write '2:4', 'unstructured(0.8)' or 'block(16,16,0.5)'",
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(f"{text} is not a share of zeros between 0 and 1")
    return share
