"""CUTLASS's 2:4 matrix product, as torch has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.libraries import two_of_four
from sparsecompile.codegen.libraries.two_of_four import ROWS, pad, padded
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.extern import PackedExtern
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

ALIGNED_N, ALIGNED_K = 32, 64
META_COLUMNS = 16
"""Columns of the weight that one int16 of positions stands for."""


class Cutlass(PackedExtern):
    """`torch._sparse_semi_structured_mm`: the layout is kept values, then reordered positions."""

    name = "cutlass"

    def supports(self, spec: KernelSpec, target: Target) -> None:
        """Return for 2:4 float16 and bfloat16 on sm_80 to sm_89.

        Raises:
            Reject: another GPU, format, dtype or rounding of activations.
        """
        if two_of_four.capability(target) >= (9, 0):
            raise Reject(f"torch's CUTLASS 2:4 kernels need sm_80 to sm_89, this is {target.arch}")
        two_of_four.check(spec, "CUTLASS")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """One: torch chooses."""
        return (Schedule(),)

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Padding counted, and the copy that turns the result around."""
        n, k = weight.shape
        aligned = padded(n, ALIGNED_N), padded(k, ALIGNED_K)
        nbytes = sum(_sizes(aligned, spec.dtype))
        return two_of_four.cost(nbytes, weight.shape, aligned, spec.dtype, turned=True)

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """Values `[n', k' / 2]`, then positions `[n', k' / 16]` int16 in CUTLASS's order.

        n' and k' are n and k rounded up to multiples of 32 and 64.
        """
        n, k = packed.shape
        values, positions = two_of_four.compress(packed, padded(n, ALIGNED_N), padded(k, ALIGNED_K))
        parts = (values.contiguous(), reorder(positions).contiguous())
        return torch.cat([part.view(-1).view(torch.uint8) for part in parts])

    def call(
        self, x: Tensor, layout: Tensor, bias: Tensor | None, n: int, schedule: Schedule
    ) -> Tensor:
        """`(W @ x.T).T`, of the padded operands."""
        m, k = x.shape
        aligned = rows, columns = padded(n, ALIGNED_N), padded(k, ALIGNED_K)
        size, _ = _sizes(aligned, x.dtype)
        values = layout[:size].view(x.dtype).view(rows, columns // 2)
        positions = layout[size:].view(torch.int16).view(rows, columns // META_COLUMNS)
        x = pad(x, padded(m, ROWS), columns)
        if bias is None:
            result = torch._sparse_semi_structured_mm(values, positions, x.t())
        else:
            bias = F.pad(bias, (0, rows - n))
            result = torch._sparse_semi_structured_addmm(bias, values, positions, x.t())
        return result[:n, :m].t().contiguous()


def reorder(positions: Tensor) -> Tensor:
    """Positions `[n, k / 4]` uint8 to `[n, k / 16]` int16 as CUTLASS's threads read them.

    Four groups fill an int16. In every 32 rows, row `8 a + b` goes to `4 b + a`; every 2 x 2 block
    is transposed; then columns are stored in pairs, row after row (CUTLASS, `host_reorder.h` and
    `ColumnMajorInterleaved<2>`).
    """
    n, groups = positions.shape
    four = positions.view(n, groups // 4, 4).int() << torch.arange(0, 16, 4, dtype=torch.int32)
    words = four.sum(-1, dtype=torch.int32).to(torch.int16)
    cells = words.view(n // 32, 2, 2, 8, groups // 8, 2)
    return cells.permute(4, 0, 3, 1, 5, 2).reshape(n, groups // 4)


def _sizes(aligned: tuple[int, int], dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the values and of the positions."""
    rows, columns = aligned
    return rows * columns // 2 * dtype.itemsize, rows * columns // META_COLUMNS * 2


COMPONENTS = (Cutlass(),)
