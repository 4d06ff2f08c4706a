"""The error ratio law of packed linears, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec

Run = Callable[[Tensor, Tensor | None, tuple[Tensor, ...]], Tensor]


def check_law(
    spec: KernelSpec, packed: Packed, lead: tuple[int, ...], with_bias: bool, run: Run
) -> tuple[Tensor, float]:
    """`run(x, bias, operands)` is at most twice as far from float64 as eager torch.

    Returns:
        Its result, and how far off it may be.
    """
    (n, k), dtype = packed.shape, packed.dtype
    x = torch.randn(*lead, k).to(dtype)
    bias = torch.randn(n).to(dtype) if with_bias else None
    steps = spec.epilogue
    operands = tuple(torch.randn(*lead, n).to(dtype) for _ in range(spec.operands))
    weight = packed.unpack()
    # What is stored and what x is rounded to are exact in float32, in torch's dtype rounded.
    stored, round_x = packed.unpack(torch.float32), ACTIVATIONS[spec.activations]
    ours = run(x, bias, operands)
    assert ours.dtype == dtype
    assert ours.shape == (*lead, n)
    wide = [t.double() for t in operands]
    wide_x, wide_bias = round_x(x.float()).double(), None if bias is None else bias.double()
    product = F.linear(wide_x, stored.double(), wide_bias)
    exact = apply_epilogue(product, steps, wide)
    # One rounding of a float32 sum, seen through the epilogue: of its end, or on the way there,
    # where terms cancel out and there are too few sums for another one to be as large.
    on_the_way = F.linear(wide_x.square(), stored.double().square()).sqrt()
    size = float(torch.maximum(product.abs(), on_the_way).max()) if product.numel() else 0.0
    eps = torch.finfo(torch.float32).eps * (1 + size)
    if spec.activations != "float":  # The scale of a rounded x multiplies its sums: once more.
        eps *= 2
    for operand in wide:
        eps *= 1 + (float(operand.abs().max()) if operand.numel() else 0.0)
    # So far off is the exact result once it is rounded, or once the weight is, which eager torch
    # multiplies in its dtype: where there are few terms, both may cancel out by chance.
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    rounding = torch.finfo(dtype).eps / 2 * largest
    of_rounded = apply_epilogue(F.linear(wide_x, weight.double(), wide_bias), steps, wide)
    ours_off = _error(ours, exact)
    eager_off = max(rounding, _error(of_rounded, exact))
    # The largest of few errors is chance: torch's is taken of the same sums in other orders too.
    orders = (torch.arange(k), torch.arange(k).flip(0), *(torch.randperm(k) for _ in range(4)))
    for order in orders:
        ordered = F.linear(round_x(x)[..., order], weight[:, order], bias)
        eager_off = max(eager_off, _error(apply_epilogue(ordered, steps, operands), exact))
    allowed = 2 * eager_off + eps
    assert ours_off <= allowed, f"error {ours_off:.3g}, allowed {allowed:.3g}"
    return ours, allowed


def sparse_weight(structure: Structure, n: int, k: int, dtype: torch.dtype) -> Tensor:
    """A random weight that has the structure, with areas of zeros, in some rows larger ones."""
    weight = torch.randn(n, k).to(dtype)
    for sparsity in (None, 0.6):
        try:
            weight = weight * structure.prune(weight, sparsity)
        except ValueError:
            continue
        break
    weight[16:32, 40:] = 0
    weight[48:64] = 0
    return weight


def _error(result: Tensor, exact: Tensor) -> float:
    difference = (result.double() - exact).abs()
    return float(difference.max()) if difference.numel() else 0.0
