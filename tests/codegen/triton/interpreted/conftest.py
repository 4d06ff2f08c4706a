"""Only with TRITON_INTERPRET=1, as `test_interpreted.py` starts them, or you."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from linear_law import check_law
from torch import Tensor

from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.start import start_linear
from sparsecompile.formats.packed import Packed

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
else:
    import interpreter

    interpreter.repair()


@pytest.fixture(scope="session")
def check_launch() -> Callable[..., tuple[Tensor, float]]:
    """Hold one function of a kernel, as a launch starts it, against float64."""

    def check(
        kernel: TritonKernel,
        launch: Launch,
        packed: Packed,
        lead: tuple[int, ...],
        with_bias: bool,
    ) -> tuple[Tensor, float]:
        layout, n = kernel.prepack(packed), packed.shape[0]

        def run(x: Tensor, bias: Tensor | None, operands: tuple[Tensor, ...]) -> Tensor:
            first, second = (*operands, None, None)[:2]
            return start_linear(
                kernel, launch, x, layout, bias, (first, second), n, lambda f: f, {}
            )

        return check_law(kernel.spec, packed, lead, with_bias, run)

    return check
