"""Pattern: what a weight is to become."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.codecs.float import Float
from sparsecompile.codecs.integer import Integer
from sparsecompile.codecs.recipe import parse_recipe as parse_quantize
from sparsecompile.errors import OptionError
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.dense import Dense
from sparsecompile.structures.recipe import parse_recipe as parse_prune

DENSE = "dense"


@dataclass(frozen=True)
class Pattern:
    """Where zeros are to be, and on which grid the other values; either, both or none.

    Attributes:
        text: as it was asked for, such as `2:4/int4[group=64]`.
        structure: of the zeros; None where every value may stay.
        share: of zeros, for a structure that does not fix it.
        codec: whose integers the values are to be; None where they may be any.
    """

    text: str
    structure: Structure | None = None
    share: float | None = None
    codec: Integer | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """From `2:4`, `unstructured(0.5)`, `block(16,16,0.5)`, `int4`, `2:4/int4` or `dense`.

        Zeros are spelt as in option `prune`, integers as in option `quantize`.

        Raises:
            OptionError: none of these.
        """
        zeros, slash, integers = text.replace(" ", "").partition("/")
        if not slash and zeros.startswith("int"):
            zeros, integers = DENSE, zeros
        try:
            structure, share = (None, None) if zeros == DENSE else parse_prune(zeros)
            codec = parse_quantize(integers).codec if slash or integers else None
        except OptionError as error:
            raise OptionError("pattern", f"no pattern is called {text!r}: {error}") from error
        if codec is None or (isinstance(codec, Integer) and codec.offsets is None):
            return cls(text, structure, share, codec)
        raise OptionError(
            "pattern",
            f"no pattern is called {text!r}: {codec} is no grid of integers around zero, as int8 "
            "and int4 are; options={'quantize': ...} rounds to it",
        )

    def __str__(self) -> str:
        """The text."""
        return self.text

    @property
    def width(self) -> int:
        """Columns of which the pattern decides at once: those of a group or of a block."""
        return self.structure.padded((1, 1))[1] if self.structure is not None else 1

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Return if a weight has no ragged groups or blocks.

        Raises:
            OptionError: it has.
        """
        padded = self.structure.padded(shape) if self.structure is not None else shape
        if padded != shape:
            raise OptionError(
                "pattern",
                f"pattern '{self}' does not divide the {shape[0]} x {shape[1]} weight of {name!r}, "
                f"{padded[0]} x {padded[1]} would be needed: give it another pattern, or "
                f"{{{name!r}: None}} to leave it alone",
            )

    def mask(self, scores: Tensor) -> Tensor:
        """Which values of a weight stay, `[n, k]` bool: those of the largest magnitude of score."""
        if self.structure is None:
            return torch.ones_like(scores, dtype=torch.bool)
        return self.structure.prune(scores, self.share)

    def round(self, weight: Tensor) -> Tensor:
        """A weight `[n, k]` float32 whose values are rounded to the nearest of the grid."""
        if self.codec is None:
            return weight
        return Format(Dense(), self.codec).pack(weight.cpu(), exact=False).unpack().to(weight)

    def nbytes(self, weight: Tensor) -> int:
        """Bytes of a weight that keeps the pattern, packed."""
        structure, shape = self.structure or Dense(), (weight.shape[0], weight.shape[1])
        format = Format(structure, self.codec or Float())
        return format.nbytes(shape, structure.find(Occupancy(weight.cpu())), weight.dtype)
