"""Which calls are pure functions of weights: they are evaluated when a weight is packed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Node, map_arg

from sparsecompile.weights.channels import take_channels
from sparsecompile.weights.parts import part, product, product_bias

Function = TypeVar("Function", bound=Callable[..., Tensor])

_NAMES = (
    *("t", "transpose", "permute", "view", "reshape", "flatten", "unsqueeze", "squeeze", "expand"),
    *("contiguous", "repeat_interleave", "stack", "cat", "index_select", "arange"),
    *("to", "type_as", "float", "half", "bfloat16", "int", "long", "short"),
    # What integers, scales and zero points are made a weight with, and how they lie in words.
    *("add", "sub", "mul", "div", "bitwise_and", "bitwise_or"),
    *("bitwise_right_shift", "bitwise_left_shift"),
    # How training rounds one.
    *("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"),
)
_OPERATORS = ("add", "sub", "mul", "truediv", "and_", "or_", "rshift", "lshift", "getitem")
_FUNCTIONS: set[Any] = {
    *(getattr(torch, name) for name in _NAMES if callable(getattr(torch, name, None))),
    *(getattr(operator, name) for name in _OPERATORS),
}
_TAKE_SUBCLASSES: set[Any] = set()
_METHODS = {name for name in _NAMES if hasattr(Tensor, name)}
_OPS = "quantized_decomposed.dequantize_"
"""With which exported models do it: these ops are there once torch's quantisation is imported."""


def weight_function(
    *, lossy: str = "", takes_subclasses: bool = False
) -> Callable[[Function], Function]:
    """Declare a pure function of weights: it is evaluated when the weight is packed, not at a call.

    It may read no activation and write nothing; `prune_weight` is one.

    Args:
        lossy: where the result stands for something else than the weight, what reports call the
            change, such as `prune`.
        takes_subclasses: whether weights may be tensor subclasses, which flatten into plain ones.
    """

    def declare(function: Function) -> Function:
        function.sparsecompile_lossy = lossy  # type: ignore[attr-defined]
        if takes_subclasses:
            _TAKE_SUBCLASSES.add(function)
        _FUNCTIONS.add(function)
        return function

    return declare


for _function in (part, product, product_bias, take_channels):
    weight_function()(_function)


def is_weight_function(node: Node) -> bool:
    """Whether a node calls a pure function of weights, which have their places in the call."""
    if _tensors_by_name(node):
        return False
    if node.op == "call_method":
        return node.target in _METHODS
    if node.op != "call_function":
        return False
    return node.target in _FUNCTIONS or str(node.target).startswith(_OPS)


def takes_subclasses(node: Node) -> bool:
    """Whether it calls a `weight_function` of tensor subclasses."""
    return node.target in _TAKE_SUBCLASSES


def _tensors_by_name(node: Node) -> list[Node]:
    """What a call takes by keyword, of the graph's tensors."""
    found: list[Node] = []
    map_arg(node.kwargs, found.append)
    return found
