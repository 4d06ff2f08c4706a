"""What recipes of quantising say: `int8-weight-only`, `int8`, `int4[group=32]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sparsecompile.codecs.integer import Int4, Int8, SymmetricInteger
from sparsecompile.errors import OptionError

_RECIPES: dict[str, tuple[SymmetricInteger, str]] = {
    "int8-weight-only": (Int8(), "float"),
    "int8": (Int8(), "int8"),
    # The usual group of four-bit weights: GPTQ (arXiv 2210.17323), AWQ (arXiv 2306.00978).
    "int4": (Int4(128), "float"),
}


@dataclass(frozen=True)
class Recipe:
    """What becomes of a linear.

    Attributes:
        codec: how its weight is stored.
        activations: see `KernelSpec`.
    """

    codec: SymmetricInteger
    activations: str


def parse_recipe(recipe: str) -> Recipe:
    """The codec and the rounding of activations that a recipe asks for.

    Args:
        recipe: `int8-weight-only`, `int8` (with activations in 8 bits) or `int4`, with the columns
            that share a scale and the dtype of scales where these are not the default:
            `int4[group=32,scales=float16]`.

    Raises:
        OptionError: none of these.
    """
    found = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", recipe.replace(" ", ""))
    if found is None or found[1] not in _RECIPES:
        raise OptionError(
            "quantize",
            f"cannot quantize to {recipe!r}; write 'int8-weight-only', 'int8' or 'int4', with a "
            "group as in 'int4[group=64]'",
        )
    codec, activations = _RECIPES[found[1]]
    if found[2] is None:
        return Recipe(codec, activations)
    try:
        parsed = codec.parse(found[2])
    except ValueError as error:
        raise OptionError("quantize", f"cannot quantize to {recipe!r}: {error}") from error
    return Recipe(replace(parsed, group=parsed.group or codec.group), activations)
