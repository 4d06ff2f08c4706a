"""LibraryKernel: a library call as a kernel of the ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.extern import PackedExtern
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.weights.expression import is_fake


@dataclass(frozen=True, eq=False)
class LibraryKernel(Kernel):
    """A kernel that calls a library; torch computes the epilogue behind it."""

    template: PackedExtern

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What the library makes of a layout; only its size where no GPU is at hand."""
        if is_fake(layout) or layout.device.type != self.device:
            return layout.new_empty(self.template.finished_bytes(layout, shape, dtype))
        return self.template.finish(layout, shape, dtype)

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        operands: Sequence[Tensor],
        n: int,
        part: Range,
    ) -> Tensor:
        """`epilogue(x @ W.T + bias)`: `[..., n]`.

        Args:
            x: `[..., k]`.
            weight: what `finish` gave.
            bias: `[n]`.
            operands: `[..., n]` each.
            n: rows of W.
            part: the range that serves these rows.
        """
        lead = x.shape[:-1]
        if prod(lead) == 0 or n == 0:
            return x.new_empty((*lead, n))
        y = self.template.call(x.reshape(-1, x.shape[-1]), weight, bias, n, part.schedule)
        return apply_epilogue(y.view(*lead, n), self.spec.epilogue, operands)

    def unpack(self, weight: Tensor, like: Tensor, n: int, k: int, first: int) -> Tensor:
        """The dense weight, `[n, k]`, in the dtype of `like`.

        Raises:
            SparseCompileError: only some of its rows are wanted: a library does not say where in a
                layout they are.
        """
        if first != 0:
            raise SparseCompileError(
                f"rows from {first} on cannot be unpacked from a layout of {self.template.name}: "
                "only all of them"
            )
        if n == 0 or k == 0:
            return like.new_empty((n, k))
        dense = self.template.unpack(weight, (n, k), self.spec.dtype, self.schedule)
        return dense.to(like.dtype)
