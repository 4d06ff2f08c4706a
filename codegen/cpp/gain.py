"""What a packed call can save at most, known without building or measuring anything."""

from __future__ import annotations

import torch

from sparsecompile.codegen.cpp.workbench import TYPICAL

LEAST_GAIN = 2e-7
"""Seconds: what saves less cannot be told from the dense linear.

To call a packed one takes longer: on two threads of a Zen 4, 2:4 linears of 8 x 8 and 16 x 16 in
float32 took 1.8 us more by themselves, and 0.07 to 0.31 us more in a compiled graph of 16.
From 32 x 32 on packed ones won some races.
"""
FEW_ROWS = 8
"""Up to this m torch calls a small linear of 16 bits as fast as one of float32.

With 128 rows that took it up to 18 us however few its values were, and 6 us packed.
"""


def nothing_to_gain(shape: tuple[int, int], rows: tuple[int, ...], dtype: torch.dtype) -> str:
    """Why a packed linear cannot be faster than the dense one, or nothing where it may be.

    It saves bytes of the weight and operations, not activations nor the call. The figures are those
    of one thread of a slow machine, so that this one need not be measured.

    Args:
        shape: `(n, k)`.
        rows: the m that it is called with.
        dtype: of the activations.
    """
    (n, k), m, limits = shape, max(rows), TYPICAL.limits
    if dtype != torch.float32 and m > FEW_ROWS:
        return ""
    moved = n * k * dtype.itemsize / limits.bandwidth
    computed = 2 * m * n * k / limits.rates["float32"]
    gain = max(moved, computed)
    if gain >= LEAST_GAIN:
        return ""
    return f"{n * k} values: nothing to gain: at most {gain * 1e6:.2g} us of a call"
