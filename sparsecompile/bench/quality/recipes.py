"""What is done to a language model before, or while, it is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparsecompile.errors import OptionError

DEFAULT = (
    "dense",
    "quantize=int8",
    "quantize=int8-weight-only",
    *(
        f"quantize=int4[group={of}]"
        for of in ("32", "128", "32,scales=float16,minima", "32,zero_points")
    ),
    *(f"quantize={name}" for name in ("nf4", "codebook", "fp8", "ternary")),
    "prune=2:4+quantize=int8",
    "prune=2:4+quantize=int4",
)
CALIBRATED = ("sparsify=2:4", "sparsify=2:4+quantize=int8", "sparsify=2:4+quantize=int4")
"""Where there is something to calibrate on."""
_OPTIONS = ("prune", "low_rank", "quantize")


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes:
        text: as it was given.
        options: of the backend.
        sparsify: pattern that the model is sparsified to before; None for none.
        method: of `sparsify`.
    """

    text: str
    options: Mapping[str, str] = field(default_factory=dict)
    sparsify: str | None = None
    method: str = "sparsegpt"

    @classmethod
    def of(cls, text: str) -> Recipe:
        """`dense`, or what is done: `sparsify=2:4+method=wanda+quantize=int4[group=32]`.

        Raises:
            OptionError: a part is none of these, or stands twice.
        """
        if text == "dense":
            return cls(text)
        found: dict[str, str] = {}
        for part in text.split("+"):
            name, _, value = part.strip().partition("=")
            if name not in (*_OPTIONS, "sparsify", "method") or not value or name in found:
                known = ", ".join((*_OPTIONS, "sparsify", "method"))
                raise OptionError(
                    "recipe", f"{text!r} is not like prune=2:4+quantize=int4; parts are {known}"
                )
            found[name] = value
        options = {name: value for name, value in found.items() if name in _OPTIONS}
        return cls(text, options, found.get("sparsify"), found.get("method", "sparsegpt"))


def recipes_of(texts: Sequence[str], *, calibrated: bool) -> list[Recipe]:
    """Those that were asked for, or the default ones, behind `dense`.

    Raises:
        OptionError: one cannot be read, or sparsifies without something to calibrate on.
    """
    asked = texts or (*DEFAULT, *(CALIBRATED if calibrated else ()))
    found = [Recipe.of(text) for text in dict.fromkeys(("dense", *asked))]
    for recipe in found:
        if recipe.sparsify and recipe.method != "magnitude" and not calibrated:
            raise OptionError("calibration", f"{recipe.text} needs --calibration FILE")
    return found
