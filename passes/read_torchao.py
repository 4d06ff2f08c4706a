"""`read_torchao`: linears of weights that torchao quantised are of the values that these hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile import LINEAR, Call, Edit, Match, Pass, Phase, Reject, weight_function
from sparsecompile.detection.survey import survey

_LINEAR = Call(LINEAR, ("x", "weight", "bias"))
_ROUNDS = {
    "Int8Tensor": ("act_quant_kwargs", "act_pre_scale"),
    "IntxUnpackedToInt8Tensor": ("activation_quantization",),
    "Float8Tensor": ("act_quant_kwargs",),
}
"""Weights whose linears compute with what they stand for, unless one of these is there."""


@weight_function(takes_subclasses=True)
def dequantized(weight: Any) -> Tensor:
    """What a quantised weight `[n, k]` stands for, in the dtype that it says it has."""
    return weight.dequantize()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ReadTorchao(Pass):
    """`linear(x, weight, bias) -> linear(x, dequantized(weight), bias)`.

    For weights as torchao's `quantize_` leaves them, where activations stay what they are and a
    lossless format holds every value in fewer bytes than the floats take. Any other linear is left
    to torchao.
    """

    name: ClassVar[str] = "read_torchao"
    phase: ClassVar[Phase] = Phase.NORMALIZE

    def run(self, edit: Edit) -> None:
        """Read weight by weight, and keep the nodes: later passes report by their names."""
        for node in edit.nodes():
            match = _LINEAR.match(node)
            tensor = edit.weights.given(match["weight"]) if match is not None else None
            if match is None or not type(tensor).__module__.startswith("torchao."):
                continue
            try:
                new = self._read(match, tensor, edit)
            except Reject as reject:
                edit.rejected(self.name, node, f"left to torchao: {reject.reason}")
            else:
                edit.replaced(self.name, node)
                node.args, node.kwargs = (match["x"], new, match["bias"]), {}

    def _read(self, match: Match, tensor: Any, edit: Edit) -> Node:
        """The node of what a weight stands for.

        Raises:
            Reject: its linear computes something else, or no format is smaller than the floats.
        """
        kind, weight = type(tensor).__name__, match["weight"]
        if kind not in _ROUNDS:
            raise Reject(f"nothing is known of {kind}")
        for attribute in _ROUNDS[kind]:
            if getattr(tensor, attribute, None) is not None:
                raise Reject(f"{kind} changes activations: {attribute} is set")
        shape, dtype = edit.value(weight).shape, edit.value(weight).dtype
        if kind == "Int8Tensor":
            _check_int8(tensor, dtype)
        value = edit.value(match["x"]).new_empty(shape, dtype=dtype)
        new = edit.call(dequantized, (weight,), before=match.node, like=weight, value=value)
        try:
            binding = edit.binding(new)
            tensors = edit.weights.live(binding)
            survey(binding, tensors, edit.formats, edit.device).format()
        except Reject:
            edit.erase(new)
            raise
        return new


def _check_int8(tensor: Any, dtype: torch.dtype) -> None:
    """Return if a linear, which scales after it multiplies, is one of the scaled values.

    Raises:
        Reject: it is not.
    """
    zeros = getattr(tensor, "zero_point", None)
    if zeros is not None and zeros.any():
        raise Reject("Int8Tensor has zero points, which its linear leaves out")
    if dtype != torch.float32:
        raise Reject(f"Int8Tensor is scaled after multiplying, and {dtype} would round the weight")


COMPONENTS = (ReadTorchao(),)
