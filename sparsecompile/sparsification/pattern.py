"""Pattern: what a weight is to become."""

from __future__ import annotations

import re
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
from sparsecompile.structures.low_rank import largest_rank, rank_of
from sparsecompile.structures.recipe import parse_recipe as parse_prune

DENSE = "dense"


@dataclass(frozen=True)
class Pattern:
    """Where zeros are to be, and on which grid the other values; either, both or none. Or a rank.

    Attributes:
        text: as it was asked for, such as `2:4/int4[group=64]`.
        structure: of the zeros; None where every value may stay.
        share: of zeros, for a structure that does not fix it.
        codec: whose integers the values are to be; None where they may be any.
        rank: as a share of the smaller side; None where it may be any.
    """

    text: str
    structure: Structure | None = None
    share: float | None = None
    codec: Integer | None = None
    rank: float | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """From `2:4`, `unstructured(0.5)`, `block(16,16,0.5)`, `int4`, `2:4/int4`, `rank(0.25)`.

        Or `dense`. Zeros are spelt as in option `prune`, integers as in option `quantize`.

        Raises:
            OptionError: none of these.
        """
        if found := re.fullmatch(r"rank\((0?\.\d*[1-9]\d*)\)", text.replace(" ", "")):
            return cls(text, rank=float(found[1]))
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
    def is_dense(self) -> bool:
        """Whether a weight may stay as it is."""
        return self.structure is None and self.codec is None and self.rank is None

    @property
    def width(self) -> int:
        """Columns of which the pattern decides at once: those of a group or of a block."""
        return self.structure.padded((1, 1))[1] if self.structure is not None else 1

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Return if a weight has no ragged groups or blocks, and is larger than factors would be.

        Raises:
            OptionError: it has, or is not.
        """
        if self.rank is not None and (rank := rank_of(shape, self.rank)) > largest_rank(shape):
            raise OptionError(
                "pattern",
                f"pattern '{self}' makes factors of rank {rank} of the {shape[0]} x {shape[1]} "
                f"weight of {name!r}, which are no smaller: give it a smaller share, or "
                f"{{{name!r}: None}} to leave it alone",
            )
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
        if self.rank is not None:
            return rank_of(weight.shape, self.rank) * sum(weight.shape) * weight.itemsize
        structure, shape = self.structure or Dense(), (weight.shape[0], weight.shape[1])
        format = Format(structure, self.codec or Float())
        return format.nbytes(shape, structure.find(Occupancy(weight.cpu())), weight.dtype)
