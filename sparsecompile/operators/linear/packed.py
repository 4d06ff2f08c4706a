"""`packed_linear`: the node that passes make of a linear, and its definition."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.formats.names import format_of, remember_format
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Call, Match
from sparsecompile.graph.weight_view import weight_reader
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.problem import rows_of
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.operators.operator import Operator


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
    dense = format_of(format).pack(weight).unpack()
    return apply_epilogue(F.linear(ACTIVATIONS[activations](x), dense, bias), epilogue, operands)


PACKED = Call(
    (packed_linear,),
    ("x", "weight", "bias", "operands", "format", "epilogue", "activations"),
    capture="linear",
)
"""Pattern of a packed linear."""


def insert_packed_linear(
    edit: Edit,
    x: Node,
    weight: Node,
    bias: Node | None,
    format: Format,
    *,
    before: Node,
    operands: tuple[Node, ...] = (),
    epilogue: tuple[str, ...] = (),
    activations: str = "float",
    origins: tuple[str, ...],
) -> Node:
    """Insert a `packed_linear` into a graph; for `before` and `origins` see `Edit.call`.

    Raises:
        RegistrationError: no operator of the Compiler's registry lowers it.
    """
    edit.device.registry.get(Operator, KernelSpec.operator)
    example, (n, k) = edit.value(x), edit.value(weight).shape
    codegen = edit.device.codegen
    if not codegen.nothing_to_gain((n, k), rows_of(example)[0], example.dtype):
        codegen.start()
    args = (x, weight, bias, operands, remember_format(format), epilogue, activations)
    value = example.new_empty((*example.shape[:-1], n))
    return edit.call(packed_linear, args, before=before, value=value, origins=origins)


def packed_linears(edit: Edit) -> Iterator[Match]:
    """The `packed_linear` nodes in order, with the arguments they have when they come up."""
    for node in edit.nodes():
        match = PACKED.match(node)
        if match is not None:
            yield match
