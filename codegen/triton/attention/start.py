"""Starting the functions of a generated attention on tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.attention.flash import FEW, MANY
from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.errors import SparseCompileError
from sparsecompile.masks.block_mask import FEW_QUERIES, TILE


def start_attention(
    kernel: TritonKernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    softcap: float,
    options: dict[str, Any],
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Tensor:
    """`softmax(softcap(q @ k.T * scale) + bias) @ v`: see `AttentionSpec`.

    Args:
        kernel: whose functions are started.
        q: `[batch, heads, queries, d]`.
        k: `[batch, heads / groups, keys, d]`.
        v: `[batch, heads / groups, keys, dv]`.
        mask: a `BlockMask`'s layout, or None for all keys.
        bias: of a shape that expands to `[batch, heads, queries, keys]`.
        scale: of the products.
        softcap: see `AttentionSpec`.
        options: for Triton's compiler.
        k_scale: of keys that are int8, of a shape that expands to `[batch, kv heads, keys, 1]`.
        v_scale: the same of values.

    Returns:
        `[batch, heads, queries, dv]`, with the heads of a query beside each other in memory.

    Raises:
        SparseCompileError: k, v or their scales do not fit q.
    """
    _check(kernel, q, k, v, k_scale, v_scale)
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    out = q.new_empty((batch, queries, heads, v.shape[3])).transpose(1, 2)
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    if bias is not None:
        bias = bias.expand(batch, heads, queries, keys)
    scales = [t if t is None else t.expand(*k.shape[:3], 1) for t in (k_scale, v_scale)]
    places = [stride for t in (q, k, v, out) for stride in t.stride()[:3]]
    strides = (*places, *(bias.stride() if bias is not None else (0,) * 4))
    for scale_of in scales:
        strides += scale_of.stride()[:3] if scale_of is not None else (0,) * 3
    launch = launch_for(kernel, queries)
    module = kernel.modules[launch.source]
    function = getattr(module, launch.function)
    compiled = {"num_warps": launch.warps, "num_stages": launch.stages, **options}
    tensors, numbers = (q, k, v, *scales, mask, bias, out), (scale, softcap, heads, queries, keys)
    if launch.symbol == MANY:
        blocks = batch * heads * -(-queries // launch.block_m)
        sides = {"BLOCK_M": launch.block_m, "BLOCK_N": launch.block_n}
        function[(blocks,)](*tensors, *numbers, *strides, **sides, **compiled)
        return out
    pairs = batch * k.shape[1]
    own = queries * heads // k.shape[1]
    blocks = pairs * -(-own // launch.block_m)
    parts = launch.parts(blocks, -(-keys // TILE))
    sums = totals = None
    if parts > 1:
        sums = torch.empty((parts, pairs * own, v.shape[3]), dtype=torch.float32, device=q.device)
        totals = torch.empty((parts, pairs * own, 2), dtype=torch.float32, device=q.device)
    function[(blocks * parts,)](
        *tensors, sums, totals, *numbers, parts, *strides, BLOCK_M=launch.block_m, **compiled
    )
    if parts > 1:
        module.merge_parts[(pairs * own,)](
            sums, totals, out, heads, queries, parts, *out.stride()[:3], num_warps=1, **options
        )
    return out


def launch_for(kernel: TritonKernel, queries: int) -> Launch:
    """What reads the form that masks of so many queries have, of the schedule for them."""
    symbol = FEW if queries <= FEW_QUERIES else MANY
    return kernel.launch_of(replace(kernel.range_at(queries), symbol=symbol))


def _check(kernel: TritonKernel, q: Tensor, k: Tensor, v: Tensor, *scales: Tensor | None) -> None:
    """A kernel reads what it is told is there."""
    spec: Any = kernel.spec
    batch, heads = q.shape[0], q.shape[1]
    wanted = (batch, heads // spec.groups, k.shape[2])
    expected = ((batch, heads, q.shape[2], spec.head_dim), (*wanted, spec.head_dim))
    for name, given, shape in zip(
        "qkv", (q, k, v), (*expected, (*wanted, spec.value_dim)), strict=True
    ):
        dtype = spec.dtype if name == "q" else spec.kv_dtype or spec.dtype
        if tuple(given.shape) != shape or given.dtype != dtype:
            raise SparseCompileError(
                f"{name} of an attention is {tuple(given.shape)} {given.dtype}; its kernel takes "
                f"{shape} {dtype}"
            )
    for name, scale in zip("kv", scales, strict=True):
        if (scale is None) != (spec.kv_dtype is None):
            said = "no scale" if scale is None else "a scale"
            raise SparseCompileError(
                f"{name} of an attention has {said}; its kernel takes {spec.kv_dtype or spec.dtype}"
            )
        fits = (*wanted, 1)
        if scale is not None and any(
            a not in (1, b) for a, b in zip(scale.shape, fits, strict=True)
        ):
            raise SparseCompileError(
                f"the scale of {name} is {tuple(scale.shape)}; its kernel takes {fits}, or 1 in "
                "some dimensions"
            )
