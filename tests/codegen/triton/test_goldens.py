"""Generated modules: of each template one that is whole, and what differs in others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldens import check_golden, unlike
from triton_cases import H100, template_of

from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.template import Source
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


SPECS = tuple(KernelSpec(default_registry().format(name), *rest) for name, *rest in CASES)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_golden(spec: KernelSpec) -> None:
    first = next(each for each in SPECS if template_of(each) is template_of(spec))
    source, whole = rendered(spec), rendered(first)
    text = source.text if spec == first else unlike(source.text, whole.text, whole.file)
    check_golden(GOLDENS / source.file, text)
    assert max(map(len, source.text.splitlines())) <= 120


def rendered(spec: KernelSpec) -> Source:
    template = template_of(spec)
    assert template is not None
    return template.render(spec, template.schedules(spec, H100)[0], H100, default_registry())
