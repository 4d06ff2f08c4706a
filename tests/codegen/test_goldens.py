"""Generated sources: of each template one that is whole, and what differs in others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goldens import check_golden, unlike

from sparsecompile.codegen.cpp.fragment import fragment_of
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.codegen.cpp.text import read
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry

GOLDENS = Path(__file__).parent / "goldens"
SHARED = {
    "generic": (
        *("arguments.h", "prelude.h", "numbers.h", "activations.h", "round.h", "finish.h"),
        *("turn.h", "transpose.h", "generic.h"),
    ),
    "strips": (
        *("arguments.h", "prelude.h", "numbers.h", "activations.h", "round.h", "finish.h"),
        *(f"strips/layout/{part}.h" for part in ("strips", "values", "ahead", "float", "prepack")),
        *("strips/decode/float.h", "strips/decode/few.h", "strips/batch/share.h"),
    ),
}
PAIRS = ("turn.h", "transpose.h", "strips/x/tiles.h", "strips/batch/kept.h")
STRIPS = (
    (
        "amx",
        (
            "strips/layout/avx512.h",
            *(f"strips/batch/{part}.h" for part in ("chunk", "vectors", "amx", "expanded")),
        ),
    ),
    (
        "avx512_bf16",
        ("strips/layout/avx512.h", *PAIRS, "strips/x/pairs.h", "strips/batch/pairs_bfloat16.h"),
    ),
    ("avx2", ("strips/layout/avx2.h", *PAIRS, "strips/x/floats.h", "strips/batch/pairs_floats.h")),
)
CASES = (
    ("dense", torch.float32, ()),
    ("n_m[2:4]", torch.bfloat16, ("silu", "mul")),
    ("n_m[1:8]", torch.float16, ("relu",)),
    ("n_m[4:8]", torch.float32, ("gelu",)),
    ("n_m[2:16]", torch.float32, ("tanh", "add")),
    ("block[16x16]", torch.bfloat16, ("gelu_tanh",)),
    ("bitmap", torch.bfloat16, ("add",)),
    ("csr", torch.float16, ("sigmoid",)),
    ("dense/int8", torch.bfloat16, ()),
    ("n_m[2:4]/int4[group=128]", torch.bfloat16, ()),
    ("dense/int3[group=32,zero_points]", torch.float16, ()),
)


@pytest.mark.parametrize(("name", "dtype", "epilogue"), CASES)
def test_golden(
    name: str, dtype: torch.dtype, epilogue: tuple[str, ...], registry: Registry
) -> None:
    target = Target("cpu", "x86_64", "avx512")
    (path, text), (first, whole) = (
        golden(GenericLinear(), KernelSpec(registry.format(name), *rest), target, registry)
        for name, *rest in ((name, dtype, epilogue), CASES[0])
    )
    check_golden(path, text if path == first else unlike(text, whole, first.name))


@pytest.mark.parametrize(("isa", "batch"), STRIPS)
def test_golden_of_strips(isa: str, batch: tuple[str, ...], registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.bfloat16)
    (path, text), (first, whole) = (
        golden(StripsLinear(), spec, Target("cpu", "x86_64", isa), registry, batch)
        for isa, batch in ((isa, batch), STRIPS[0])
    )
    check_golden(path, text if path == first else unlike(text, whole, first.name))


def leave_out(text: str, part: str, name: str) -> str:
    assert text.count(part) == 1
    return text.replace(part, f"// ... {name} ...\n")


def golden(
    template: Template,
    spec: KernelSpec,
    target: Target,
    registry: Registry,
    more: tuple[str, ...] = (),
) -> tuple[Path, str]:
    """Where it is, and what it has to be."""
    source = template.render(spec, template.schedules(spec, target)[0], target, registry)
    text = source.text
    for shared in (*SHARED[template.name], *more):
        text = leave_out(text, read(shared), shared)
    if more:
        # Others have these too.
        for part in (spec.format.structure, spec.format.codec):
            text = leave_out(text, fragment_of(registry, part).render(part, spec), str(part))
    return GOLDENS / f"{source.name}.cpp", text
