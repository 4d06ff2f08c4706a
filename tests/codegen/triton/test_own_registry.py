"""A structure of somebody else, registered with one Compiler only, on a GPU that is not there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from triton_rows import KeptRows, own_registry, weight_without_rows

import sparsecompile as sc
from sparsecompile.codegen.triton.fragment import structure_fragment
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template


def test_it_is_found_packed_and_lowered() -> None:
    model = nn.Linear(256, 96).half().requires_grad_(False)
    model.weight.copy_(weight_without_rows(96, 256))
    compiler = sc.Compiler(own_registry(), target="sm_90", formats=["kept_rows"])
    report = compiler.explain(model, torch.randn(4, 256).half())
    (node,) = report.nodes
    assert node.format == "kept_rows/float"
    assert node.kernel is not None
    assert node.kernel.template == "tiles"
    assert "def load_tile" in report.sources[node.kernel.source]
    assert "place_part" in report.sources[node.kernel.source]
    assert node.packed_bytes < 0.4 * node.dense_bytes


@pytest.mark.parametrize("codec", ["float", "int8", "int4[group=32]"])
def test_its_layout_is_made_with_the_registry_of_the_compile(codec: str) -> None:
    registry, target = own_registry(), Target.parse("sm_90")
    spec = sc.KernelSpec(registry.format(f"kept_rows/{codec}"), torch.float16)
    template = registry.get(Template, "tiles")
    assert isinstance(template, TritonLinear)
    schedule = template.schedules(spec, target)[0]
    kernel = TritonCodegen().build(spec, template, schedule, target, registry)
    packed = spec.format.pack(weight_without_rows(9, 40).half())
    layout = kernel.prepack(packed)
    assert torch.equal(layout, template.prepack(packed, schedule, registry))
    assert layout[:24].view(torch.int64).tolist() == [9, 40, 3 * 40]
    with pytest.raises(sc.Reject, match="no Triton fragment reads 'kept_rows'"):
        template.prepack(packed, schedule, sc.default_registry())


def test_nothing_of_it_is_known_elsewhere() -> None:
    with pytest.raises(sc.Reject, match="no Triton fragment reads 'kept_rows'"):
        structure_fragment(sc.default_registry(), KeptRows())
