"""What a function of a generated module is called with: for compiling it with no GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.kernels.spec import KernelSpec

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int8: "*i8",
}
"""Triton's name of a pointer to each dtype."""
ALIGNMENT = 16
"""Bytes at a multiple of which torch's tensors begin; sizes are taken to be multiples too."""


@dataclass(frozen=True)
class Signature:
    """The arguments of one function as Triton specialises it for a usual call.

    Attributes:
        types: by name, in order: `*fp16`, `i32`, `constexpr`.
        constants: values of those that are `constexpr`; None for what is not given.
        divisible: names of the others that are multiples of `ALIGNMENT`.
    """

    types: dict[str, str]
    constants: dict[str, Any]
    divisible: tuple[str, ...]

    def attributes(self) -> dict[tuple[int, ...], list[list[Any]]]:
        """`divisible` as `triton.compiler.ASTSource` takes it."""
        names = list(self.types)
        return {(names.index(n),): [["tt.divisibility", ALIGNMENT]] for n in self.divisible}


def linear_signature(
    spec: KernelSpec, launch: Launch, *, bias: bool = True, splits: int = 1
) -> Signature:
    """The arguments of the function that a launch starts, for n, k and strides that are aligned.

    Args:
        spec: what is computed.
        launch: how.
        bias: whether there is one.
        splits: parts of k.
    """
    x = "*i8" if spec.activations != "float" else POINTERS[spec.dtype]
    scales = "*fp32" if spec.activations != "float" else None
    operands = [POINTERS[spec.dtype] if i < spec.operands else None for i in range(2)]
    given: dict[str, str | None] = {
        "x": x,
        "x_scales": scales,
        "weight": "*u8",
        "bias": POINTERS[spec.dtype] if bias else None,
        "operand0": operands[0],
        "operand1": operands[1],
        "y": POINTERS[spec.dtype] if splits == 1 else "*fp32",
        "m": "i32",
        "n": "i32",
        "k": "i32",
        "x_stride": "i32",
    }
    constants: dict[str, Any] = {name: None for name, type_ in given.items() if type_ is None}
    if launch.largest_m == 1:
        constants["m"] = 1
    constants |= {"BLOCK_N": launch.block_n, "BLOCK_M": launch.block_m, "SPLITS": splits}
    names = (*given, "BLOCK_N", "BLOCK_M", "SPLITS")
    types = {n: "constexpr" if n in constants else str(given[n]) for n in names}
    divisible = tuple(n for n in names if n not in constants and n != "m")
    return Signature(types, constants, divisible)
