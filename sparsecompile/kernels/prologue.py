"""What a packed linear may do to its input before the product, defined by torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def quantize_activation(x: Tensor) -> Tensor:
    """Every row of x `[..., k]` as integers of -127 to 127 times one float32 scale.

    The scale of a row is `max |x| / 127`, or 1 where that is below the smallest normal float32; the
    integers are rounded to nearest, ties to even. The product is rounded to x's dtype; a kernel
    does without this last rounding. A row with a NaN or an infinity is all NaN.
    """
    if not x.shape[-1]:
        return x
    integers, scale = rounded_rows(x)
    return (integers * scale).to(x.dtype)


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """The integers and the scales `[..., 1]` of `quantize_activation`, both as float32."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale < _TINY, torch.ones_like(scale), scale)
    return torch.round(wide / scale), scale


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "float": lambda x: x,
    "int8": quantize_activation,
}
"""By the names that `KernelSpec.activations` may have."""
