"""What values and activations are, for loops that are written for integers or for floats."""

from __future__ import annotations

import torch

from sparsecompile.kernels.spec import KernelSpec


def are_integers(spec: KernelSpec) -> bool:
    """Whether values of the weight are integers, with scales."""
    return not spec.format.codec.lossless


def have_groups(spec: KernelSpec) -> bool:
    """Whether columns have scales, and not whole rows alone."""
    return bool(getattr(spec.format.codec, "group", None))


def rounds(spec: KernelSpec) -> bool:
    """Whether 16 bits a row of x are enough: float16's own are finer where elements are small."""
    return spec.activations == "int8" or spec.dtype == torch.bfloat16


def by_integers(spec: KernelSpec) -> bool:
    """Whether values are integers, and many rows of x become such."""
    return are_integers(spec) and rounds(spec)
