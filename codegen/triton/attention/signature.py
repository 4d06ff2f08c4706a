"""What functions of attention are called with: for compiling them with no GPU."""

from __future__ import annotations

from typing import Any

from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.signature import POINTERS, Signature
from sparsecompile.operators.attention.spec import AttentionSpec

STRIDES = tuple(
    f"{name}_{axis}" for name in ("q", "k", "v", "out") for axis in ("batch", "head", "row")
)
SCALES = ("k_scale", "v_scale")
SCALE_STRIDES = tuple(f"{name}_{axis}" for name in SCALES for axis in ("batch", "head", "row"))
BIAS_STRIDES = ("bias_batch", "bias_head", "bias_row", "bias_key")
SIZES = ("heads", "queries", "keys")


def attention_signature(
    spec: AttentionSpec, launch: Launch, *, mask: bool = True, bias: bool = True, split: bool = True
) -> Signature:
    """The arguments of the function that a launch starts, for strides that are aligned.

    Args:
        spec: what is computed.
        launch: how.
        mask: whether there is one.
        bias: whether there is one.
        split: whether few queries write parts of their keys.
    """
    pointer, is_few = POINTERS[spec.dtype], launch.largest_m is not None
    given: dict[str, str | None] = {
        "q": pointer,
        **dict.fromkeys("kv", POINTERS[spec.kv_dtype or spec.dtype]),
        **dict.fromkeys(SCALES, "*fp32" if spec.kv_dtype is not None else None),
        "mask": "*u8" if mask else None,
        "bias": pointer if bias else None,
        "out": pointer,
    }
    parts = "*fp32" if split else None
    if is_few:
        given |= {"sums_out": parts, "totals_out": parts}
    given |= dict.fromkeys(("scale", "softcap"), "fp32")
    given |= dict.fromkeys(SIZES, "i32")
    if is_few:
        given["parts"] = "i32"
    given |= dict.fromkeys((*STRIDES, *BIAS_STRIDES, *SCALE_STRIDES), "i32")
    constants: dict[str, Any] = {name: None for name, type_ in given.items() if type_ is None}
    constants |= {"bias_key": 1, "k_scale_row": 1, "v_scale_row": 1, "BLOCK_M": launch.block_m}
    if not is_few:
        constants["BLOCK_N"] = launch.block_n
    names = dict.fromkeys((*given, *constants))
    types = {name: "constexpr" if name in constants else str(given[name]) for name in names}
    aligned = (*"qkv", "mask", "bias", "out", "sums_out", "totals_out")
    aligned += (*STRIDES, *BIAS_STRIDES, *SCALES, *SCALE_STRIDES)
    divisible = tuple(name for name in aligned if name in types and name not in constants)
    return Signature(types, constants, divisible)
