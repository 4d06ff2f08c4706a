"""`quantize_weight`: the node that a pass makes of a weight to be quantised, and its definition."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.formats.codec import Codec
from sparsecompile.formats.names import format_of, remember_format
from sparsecompile.formats.packed import Format
from sparsecompile.graph.pattern import Call
from sparsecompile.graph.weight_functions import weight_function
from sparsecompile.kernels.prologue import quantize_activation
from sparsecompile.structures.dense import Dense


@torch.library.custom_op(
    "sparsecompile::quantize_weight",
    mutates_args=(),
    schema="(Tensor weight, str codec) -> Tensor",
)
def _quantize_weight(weight: Tensor, codec: str) -> Tensor:
    return format_of(f"dense/{codec}").pack(weight).unpack()


@_quantize_weight.register_fake
def _(weight: Tensor, codec: str) -> Tensor:
    return weight.new_empty(weight.shape)


@weight_function(lossy="quantize")
def quantize_weight(weight: Tensor, codec: str) -> Tensor:
    """The weight `[n, k]` as a codec stores it, in its own dtype.

    An op of its own, so that a node that stays in the graph is not traced into.

    Args:
        weight: `[n, k]`.
        codec: what `remember_codec` returned.
    """
    quantized: Tensor = _quantize_weight(weight, codec)
    return quantized


QUANTIZED_WEIGHT = Call((quantize_weight,), ("weight", "codec"))
"""Pattern of a weight to be quantised."""
QUANTIZED_ACTIVATION = Call((quantize_activation,), ("x",))
"""Pattern of an activation that is rounded to 8 bits."""


def remember_codec(codec: Codec) -> str:
    """The name under which `codec_of` finds a codec."""
    remember_format(Format(Dense(), codec))
    return codec.name


def codec_of(name: str) -> Codec:
    """The codec that a `quantize_weight` node names."""
    return format_of(f"dense/{name}").codec
