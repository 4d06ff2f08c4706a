"""What is done to x before the product, in Triton."""

from __future__ import annotations

from sparsecompile.errors import Reject

ROUND = '''\
@triton.jit
def round_activations(x, rounded, x_scales, k, x_stride, BLOCK: tl.constexpr):
    """A row of x as integers of -127 to 127 times one scale; NaN where it is not all finite."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, k, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < k, other=0.0).to(tl.float32)
        finite = value - value == 0.0
        largest = tl.maximum(largest, tl.where(finite, tl.abs(value), float("inf")))
    scale = tl.div_rn(tl.max(largest, 0), 127.0)
    # Below the smallest normal float32 everything is rounded to zero.
    scale = tl.where(scale < 1.1754943508222875e-38, 1.0, scale)
    is_finite = scale - scale == 0.0
    tl.store(x_scales + row, tl.where(is_finite, scale, float("nan")))
    for first in range(0, k, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < k, other=0.0).to(tl.float32)
        quotient = tl.div_rn(value, tl.zeros((BLOCK,), tl.float32) + scale)
        # Adding 1.5 * 2**23 leaves no bits for a fraction: to nearest, ties to even.
        integer = (quotient + 12582912.0) - 12582912.0
        integer = tl.where(is_finite, integer, 0.0)
        tl.store(rounded + row * k + columns, integer.to(tl.int8), mask=columns < k)
'''

_ROUNDS = {"float": "", "int8": ROUND}


def check_rounding(activations: str) -> None:
    """Return if Triton rounds x so.

    Raises:
        Reject: it does not know how.
    """
    if activations not in _ROUNDS:
        raise Reject(f"no Triton rounds activations to {activations!r}")


def render_rounding(activations: str) -> str:
    """The function `round_activations`; empty where x stays as it is."""
    return _ROUNDS[activations]
