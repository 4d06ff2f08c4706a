"""What Triton kernels do not do, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codings import Coded
from triton_cases import H100, TEMPLATES, build

import sparsecompile as sc
from sparsecompile.codegen.triton.fragment import codec_fragment, structure_fragment
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.module import import_module, write_module
from sparsecompile.errors import BuildError, Reject
from sparsecompile.formats.packed import Format
from sparsecompile.kernels.codegen import Codegen
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Fragment, Source
from sparsecompile.structures.dense import Dense


def spec_of(
    name: str, dtype: torch.dtype = torch.float16, activations: str = "float"
) -> KernelSpec:
    return KernelSpec(sc.default_registry().format(name), dtype, activations=activations)


def template(name: str) -> TritonLinear:
    return next(t for t in TEMPLATES if t.name == name)


def refusal(name: str, spec: KernelSpec, target: Target = H100) -> str:
    with pytest.raises(Reject) as refused:
        template(name).supports(spec, target, sc.default_registry())
    return refused.value.reason


@pytest.mark.parametrize("name", [t.name for t in TEMPLATES])
def test_other_targets_and_dtypes(name: str) -> None:
    spec = spec_of("dense/int8")
    assert refusal(name, spec, Target.host()) == "Triton is for GPUs, not for cpu"
    assert refusal(name, spec, Target.parse("sm_75")) == "needs sm_80, this is sm_75"
    assert "float64 activations have no Triton type" in refusal(
        name, replace(spec, dtype=torch.float64)
    )


def test_structures_are_read_in_one_way() -> None:
    assert refusal("tiles", spec_of("csr")) == "csr is read by rows, not tiles"
    assert refusal("rows", spec_of("bitmap")) == "bitmap is read by scattered, not rows"


@pytest.mark.parametrize(
    ("name", "structure", "reason"),
    [
        ("tiles", "n_m[3:7]", "n_m[3:7] is read by scattered, not tiles"),
        ("scattered", "n_m[8:16]", "n_m[8:16] is read by tiles, not scattered"),
        (
            "blocks",
            "block[256x16]",
            "blocks of 256x16 do not fit in registers, at most 128x128 do",
        ),
        ("blocks", "block[1x129]", "blocks of 1x129 do not fit in registers, at most 128x128 do"),
    ],
)
def test_structures_that_do_not_fit(name: str, structure: str, reason: str) -> None:
    assert refusal(name, spec_of(structure)) == reason


def test_steps_and_rounding() -> None:
    spec = spec_of("dense/int8")
    strange = refusal("tiles", replace(spec, epilogue=("softmax",)))
    assert strange == "the epilogue step 'softmax' has no Triton expression"
    assert refusal("tiles", replace(spec, activations="int3")) == (
        "no Triton rounds activations to 'int3'"
    )
    floats = spec_of("n_m[2:4]", activations="int8")
    assert refusal("tiles", floats) == "int8 activations need integer weights"


def test_a_codec_that_does_not_say_how_values_are_coded() -> None:
    spec = KernelSpec(Format(Dense(), Coded(None)), torch.float16)
    assert refusal("tiles", spec) == "float does not say how a value is coded"


def test_fragments_that_are_missing_or_of_another_kind() -> None:
    class Other(Fragment):
        language, family = "triton", "dense"

        def render(self, part: object, spec: KernelSpec) -> str:
            return ""

    spec = spec_of("dense/int8")
    with pytest.raises(Reject, match="no Triton fragment reads 'dense'"):
        structure_fragment(sc.Registry(), Dense())
    with pytest.raises(Reject, match="no Triton fragment reads 'int8'"):
        codec_fragment(sc.Registry(), spec.format.codec)
    with pytest.raises(Reject, match="'dense' is not a TritonStructure"):
        structure_fragment(sc.Registry(Other()), Dense())
    for family in ("n_m", "block"):
        fragment = structure_fragment(
            sc.default_registry(),
            sc.default_registry().structure({"n_m": "n_m[2:4]", "block": "block[16x16]"}[family]),
        )
        with pytest.raises(Reject, match="dense is not a"):
            fragment.reader(Dense())


def test_a_codec_fragment_of_another_kind() -> None:
    class Other(Fragment):
        language, family = "triton", "int8"

        def render(self, part: object, spec: KernelSpec) -> str:
            return ""

    codec = spec_of("dense/int8").format.codec
    with pytest.raises(Reject, match="'int8' is not a TritonCodec"):
        codec_fragment(sc.Registry(Other()), codec)


def test_a_report_shows_why_nothing_fits() -> None:
    model = torch.nn.Linear(64, 64).requires_grad_(False)
    model.weight[:, ::2] = 0
    x = torch.randn(2, 64)
    (node,) = sc.explain(model, x, target="sm_75").nodes
    assert not node.packed
    assert any("needs sm_80, this is sm_75" in finding.reason for finding in node.findings)
    (node,) = sc.explain(model, x, target="sm_80", formats=["block[256x16]"]).nodes
    assert not node.packed


def test_a_module_that_cannot_be_imported(tmp_path: Path) -> None:
    path = write_module(Source("broken", "triton", "import no_such_module_of_triton\n", ()))
    with pytest.raises(BuildError, match=r"cannot import the generated .*broken_.*py"):
        import_module(path)


def test_modules_are_files_that_can_be_read() -> None:
    import inspect

    kernel = build(spec_of("n_m[2:4]"))
    assert kernel.path.read_text() == kernel.sources[0].text
    assert import_module(kernel.path) is kernel.module
    assert "def linear(" in inspect.getsource(kernel.module.linear.fn)
    damaged = kernel.path
    damaged.write_text("raise SystemExit")
    assert write_module(kernel.sources[0]) == damaged
    assert damaged.read_text() == kernel.sources[0].text


def test_the_codegen_is_found_by_its_device() -> None:
    assert isinstance(sc.default_registry().get(Codegen, "cuda"), TritonCodegen)
