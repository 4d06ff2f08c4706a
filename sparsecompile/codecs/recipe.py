"""What recipes of quantising say: `int8-weight-only`, `int8`, `int4[group=32]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sparsecompile.codecs.codebook import Codebook
from sparsecompile.codecs.fp8 import Fp8
from sparsecompile.codecs.integer import Int2, Int3, Int4, Int8, Ternary
from sparsecompile.codecs.nf4 import Nf4
from sparsecompile.codecs.parameters import Parametric
from sparsecompile.errors import OptionError
from sparsecompile.formats.codec import Codec

_RECIPES: Mapping[str, tuple[Parametric, str]] = {
    "int8-weight-only": (Int8(), "float"),
    "int8": (Int8(), "int8"),
    # The usual group of four-bit weights: GPTQ (arXiv 2210.17323), AWQ (arXiv 2306.00978).
    "int4": (Int4(128), "float"),
    "int3": (Int3(64, offsets="minima"), "float"),
    "int2": (Int2(32, offsets="minima"), "float"),
    "ternary": (Ternary(128), "float"),
    # As bitsandbytes has it.
    "nf4": (Nf4(64), "float"),
    "fp8": (Fp8(), "float"),
    "codebook": (Codebook(), "float"),
}


@dataclass(frozen=True)
class Recipe:
    """What becomes of a linear.

    Attributes:
        codec: how its weight is stored.
        activations: see `KernelSpec`.
    """

    codec: Codec
    activations: str


def parse_recipe(recipe: str) -> Recipe:
    """The codec and the rounding of activations that a recipe asks for.

    Args:
        recipe: `int8-weight-only`, `int8` (with activations in 8 bits), `int4`, `int3`, `int2`,
            `ternary`, `nf4`, `fp8` or `codebook`, with those parameters of the codec that are not
            the recipe's: `int4[group=32,scales=float16,zero_points]`.

    Raises:
        OptionError: none of these.
    """
    found = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", recipe.replace(" ", ""))
    if found is None or found[1] not in _RECIPES:
        *names, last = map(repr, _RECIPES)
        raise OptionError(
            "quantize",
            f"cannot quantize to {recipe!r}; write {', '.join(names)} or {last}, with a group as "
            "in 'int4[group=64]'",
        )
    codec, activations = _RECIPES[found[1]]
    if found[2] is None:
        return Recipe(codec, activations)
    try:
        parsed = codec.parse(found[2])
    except ValueError as error:
        raise OptionError("quantize", f"cannot quantize to {recipe!r}: {error}") from error
    if parsed.lossless:
        raise OptionError(
            "quantize",
            f"cannot quantize to {recipe!r}: what loses nothing is found without being asked for",
        )
    return Recipe(parsed.over(codec), activations)
