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

    Returns:
        `[batch, heads, queries, dv]`, with the heads of a query beside each other in memory.

    Raises:
        SparseCompileError: k or v do not fit q.
    """
    _check(kernel, q, k, v)
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    out = q.new_empty((batch, queries, heads, v.shape[3])).transpose(1, 2)
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    if bias is not None:
        bias = bias.expand(batch, heads, queries, keys)
    places = [stride for t in (q, k, v, out) for stride in t.stride()[:3]]
    strides = (*places, *(bias.stride() if bias is not None else (0,) * 4))
    launch = launch_for(kernel, queries)
    module = kernel.modules[launch.source]
    function = getattr(module, launch.function)
    compiled = {"num_warps": launch.warps, "num_stages": launch.stages, **options}
    tensors, numbers = (q, k, v, mask, bias, out), (scale, softcap, heads, queries, keys)
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


def _check(kernel: TritonKernel, q: Tensor, k: Tensor, v: Tensor) -> None:
    """A kernel reads what it is told is there."""
    spec: Any = kernel.spec
    batch, heads = q.shape[0], q.shape[1]
    wanted = (batch, heads // spec.groups, k.shape[2])
    expected = ((batch, heads, q.shape[2], spec.head_dim), (*wanted, spec.head_dim))
    for name, given, shape in zip(
        "qkv", (q, k, v), (*expected, (*wanted, spec.value_dim)), strict=True
    ):
        if tuple(given.shape) != shape or given.dtype != spec.dtype:
            raise SparseCompileError(
                f"{name} of an attention is {tuple(given.shape)} {given.dtype}; its kernel takes "
                f"{shape} {spec.dtype}"
            )
