"""cuSPARSELt's 2:4 matrix product, as torch has it."""

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

ALIGNED = 16
"""What n and k are padded to."""
FEWEST_ALGORITHMS = 4
"""As many as the oldest version that torch was built with has."""


class CuSparseLt(PackedExtern):
    """`torch._cslt_sparse_mm`: the library makes its own layout of the weight, on the GPU."""

    name = "cusparselt"

    def supports(self, spec: KernelSpec, target: Target) -> None:
        """Return for 2:4 float16 and bfloat16 on sm_80 and later.

        Raises:
            Reject: another GPU, format, dtype or rounding of activations, or torch lacks it.
        """
        two_of_four.capability(target)
        two_of_four.check(spec, "cuSPARSELt")
        if not torch.backends.cusparselt.is_available():
            raise Reject("this torch was built without cuSPARSELt; the wheels for CUDA have it")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The library's default algorithm."""
        return (Schedule.of({"alg_id": 0}),)

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """Every algorithm that torch knows the library to have."""
        count = torch.backends.cusparselt.get_max_alg_id() or FEWEST_ALGORITHMS
        return tuple(Schedule.of({"alg_id": i}) for i in range(count))

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Padding counted; half the values and two bits for each of them."""
        aligned = rows, columns = _aligned(weight.shape)
        nbytes = rows * columns // 2 * spec.dtype.itemsize + rows * columns // 8
        return two_of_four.cost(nbytes, weight.shape, aligned, spec.dtype, turned=False)

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The dense weight `[n', k']`, padded to multiples of 16; `finish` makes the layout."""
        return pad(packed.unpack(), *_aligned(packed.shape)).view(-1).view(torch.uint8)

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What the library makes of the dense weight: opaque, 9/16 of its bytes."""
        dense = layout.view(dtype).view(_aligned(shape))
        return torch._cslt_compress(dense).view(-1).view(torch.uint8)

    def finished_bytes(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> int:
        """9/16 of the dense weight."""
        return layout.numel() // 16 * 9

    def call(
        self, x: Tensor, layout: Tensor, bias: Tensor | None, n: int, schedule: Schedule
    ) -> Tensor:
        """`(W @ x.T).T` of the padded operands, turned around by the library."""
        m, k = x.shape
        rows, columns = _aligned((n, k))
        x = pad(x, padded(m, ROWS), columns)
        result = torch._cslt_sparse_mm(
            layout.view(x.dtype).view(rows, -1),
            x.t(),
            bias=None if bias is None else F.pad(bias, (0, rows - n)),
            transpose_result=True,
            alg_id=schedule["alg_id"],
        )
        return result[:m, :n].contiguous()


def _aligned(shape: tuple[int, int]) -> tuple[int, int]:
    return padded(shape[0], ALIGNED), padded(shape[1], ALIGNED)


COMPONENTS = (CuSparseLt(),)
