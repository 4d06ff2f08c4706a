"""Generated modules as people read them; SPARSECOMPILE_UPDATE_GOLDENS=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from triton_cases import H100, template_of

from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.registry import default_registry

GOLDENS = Path(__file__).parent / "goldens"
CASES = (
    # A GEMV is `linear_row` of the first; the others are what it says.
    ("dense/int4[group=128]", torch.bfloat16, (), "float"),
    ("n_m[2:4]", torch.float16, ("silu", "mul"), "float"),
    ("n_m[4:8]", torch.float16, (), "float"),
    ("block[32x32]", torch.bfloat16, ("gelu_tanh",), "float"),
    ("bitmap", torch.float16, ("add",), "float"),
    ("csr", torch.float32, ("relu",), "float"),
    ("dense/int8", torch.bfloat16, (), "int8"),
)


@pytest.mark.parametrize(("name", "dtype", "epilogue", "activations"), CASES)
def test_golden(name: str, dtype: torch.dtype, epilogue: tuple[str, ...], activations: str) -> None:
    registry = default_registry()
    spec = KernelSpec(registry.format(name), dtype, epilogue, activations)
    template = template_of(spec)
    assert template is not None
    source = template.render(spec, template.schedules(spec, H100)[0], H100, registry)
    path = GOLDENS / source.file
    if os.environ.get("SPARSECOMPILE_UPDATE_GOLDENS"):
        path.write_text(source.text, encoding="utf-8")
    assert source.text == path.read_text(encoding="utf-8")
    assert max(map(len, source.text.splitlines())) <= 120
