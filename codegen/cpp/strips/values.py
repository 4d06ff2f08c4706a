"""What values and activations are, for loops that are written for integers or for floats."""

from __future__ import annotations

import torch

from sparsecompile.kernels.spec import KernelSpec


def rounds(spec: KernelSpec) -> bool:
    """Whether 16 bits a row of x are enough: float16's own are finer where elements are small."""
    return spec.activations == "int8" or spec.dtype == torch.bfloat16


def by_integers(spec: KernelSpec) -> bool:
    """Whether values are integers, and many rows of x become such."""
    return spec.coding.are_integers and rounds(spec)
