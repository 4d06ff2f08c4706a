"""TritonStructure and TritonCodec: how structures and codecs are stored for, and read by, Triton.

A generated module is made of `@triton.jit` functions. Those of a layout's parts come first:
`<name>_part(weight, n, k)` is where a part begins, a pointer to bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.errors import RegistrationError, Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.template import Fragment
from sparsecompile.registry import Registry

ELEMENTS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""Triton's name of each dtype that x and the result may have."""
TILE = 128
"""Columns of a tile: what one pass of a loop over k reads of a row."""


class TritonStructure(Fragment):
    """Stores and reads the kept places of one family; what `reads` names is who can use it.

    `tiles`: defines `load_tile(weight, rows, inside, tile, n, k)`, the values `[rows, TILE]` of one
    tile of columns of some rows, zeros where nothing is kept or `inside` is false.

    `scattered`: the same, with a load of its own for every value.

    `blocks`: parts `crow`, int32, and `col`, int32, as in `sparsecompile.structures.block`; values
    block after block, row-major. The structure has a `height` and a `width`.

    `rows`: parts `crow` and `col`, int32, as in `sparsecompile.structures.csr`.

    Beside these there is the part `values`, which the codec's functions read.
    """

    language: ClassVar[str] = "triton"
    reads: ClassVar[str]

    def reader(self, structure: Structure) -> TritonStructure:
        """What reads a structure of the family: this, unless there is a better way for that one.

        Raises:
            Reject: it cannot be read.
        """
        return self

    @abstractmethod
    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """The parts in order; `values` among them holds elements, which the codec stores.

        Args:
            packed: a weight in the structure.
            values: one element a slot, `[slots]`.
        """

    @abstractmethod
    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """Bytes of each part but the last, in Triton.

        Of `rows` (n as int64), `tiles` (of columns), `n`, `k`, and `entry_of(part, at)`, one int32
        of a part before it.
        """


class TritonCodec(Fragment):
    """Stores and reads the values of one family.

    Defines, for values as they are stored (float values, or integers as int8),
    `values_at(values, slots, there)` for any slots, and `values_in(values, first, there, COUNT)`
    for COUNT neighbours from each `first` on, `[len(first), COUNT]`; `first` is a multiple of
    COUNT. What is not `there` is zero.

    Scales, as `Codec.coding` says, are in the part `scales` `[n, groups]`; the functions that read
    them are the templates'.
    """

    language: ClassVar[str] = "triton"

    @abstractmethod
    def elements(self, packed: Packed) -> Tensor:
        """One element a slot: `[slots]`, float values or int8."""

    def store(self, elements: Tensor, packed: Packed) -> Tensor:
        """Elements, an even number of them, as bytes: `[bytes]` uint8."""
        return elements.reshape(-1).view(torch.uint8)

    def parts(self, packed: Packed) -> Mapping[str, Tensor]:
        """What belongs to values beside these: `scales` `[n, groups]`, if they have some."""
        scales = packed.values.get("scales")
        return {} if scales is None else {"scales": scales}


def structure_fragment(registry: Registry, structure: Structure) -> TritonStructure:
    """The fragment that reads a structure.

    Raises:
        Reject: there is none, or it does not read this one.
    """
    fragment = _find(registry, structure.family)
    if not isinstance(fragment, TritonStructure):
        raise Reject(f"the Triton fragment of {structure.family!r} is not a TritonStructure")
    return fragment.reader(structure)


def codec_fragment(registry: Registry, codec: Codec) -> TritonCodec:
    """The fragment of a codec.

    Raises:
        Reject: there is none.
    """
    fragment = _find(registry, codec.family)
    if not isinstance(fragment, TritonCodec):
        raise Reject(f"the Triton fragment of {codec.family!r} is not a TritonCodec")
    return fragment


def _find(registry: Registry, family: str) -> Fragment:
    try:
        return registry.get(Fragment, f"triton/{family}")
    except RegistrationError as error:
        raise Reject(f"no Triton fragment reads {family!r}") from error
