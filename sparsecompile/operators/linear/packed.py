"""`packed_linear`: the node that passes make of a linear, and its definition."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.formats.packed import Format
from sparsecompile.graph.pattern import Call
from sparsecompile.graph.weight_view import weight_reader
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.prologue import ACTIVATIONS


@weight_reader
def packed_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operands: tuple[Tensor, ...],
    format: str,
    epilogue: tuple[str, ...] = (),
    activations: str = "float",
) -> Tensor:
    """What a packed linear computes: a node of the graph until it gets its kernel.

    `x` `[..., k]`, `weight` `[n, k]` dense, `bias` `[n]` or None, `operands` `[..., n]`;
    `activations` names what is done to x. This is the definition; a compiled graph calls the op
    `sparsecompile::linear` instead.
    """
    dense = _FORMATS[format].pack(weight).unpack()
    return apply_epilogue(F.linear(ACTIVATIONS[activations](x), dense, bias), epilogue, operands)


_FORMATS: dict[str, Format] = {}
"""Formats by name, for the nodes that were made with them: a node's arguments are plain data."""

PACKED = Call(
    (packed_linear,),
    ("x", "weight", "bias", "operands", "format", "epilogue", "activations"),
    capture="linear",
)
"""Pattern of a packed linear."""


def remember_format(format: Format) -> str:
    """The name under which `format_of` finds a format."""
    _FORMATS[str(format)] = format
    return str(format)


def format_of(name: str) -> Format:
    """The format that a `packed_linear` node names."""
    return _FORMATS[name]


def origins(node: Node) -> tuple[str, ...]:
    """The linears of the model that a node does the work of, by their names in the graph."""
    return tuple(node.meta.get("sparsecompile_origins", ()))
