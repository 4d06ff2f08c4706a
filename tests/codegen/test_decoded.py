"""Kernels of weights that are decoded: rounded, with offsets, tables or small floats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
from kernel_cases import TEMPLATES, KernelCase, covering, drawn, supports
from linear_law import check_law, sparse_weight
from torch import Tensor

from sparsecompile import Dense, Float
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry

STRUCTURES = ("dense", "n_m[2:4]", "bitmap", "block[16x16]")
ROUNDED = ("int4[group=32,scales=float16]", "int6[scales=float16,minima]", "nf4[group=64]", "fp8")
EXACT = (
    *("int4[group=32,scales=float16,minima]", "int8[group=128,zero_points]", "int3[zero_points]"),
    *(
        "int2[group=64]",
        "ternary",
        "nf4[scales=float32]",
        "codebook",
        "codebook[bits=6]",
        "codebook[rows=16]",
    ),
    *("codebook[bits=3,rows=5]", "fp8[e5m2]", "fp8[unscaled]"),
)
HOST = Target.host()
TARGETS = (HOST,) if HOST.isa == "avx2" else (HOST, replace(HOST, isa="avx2"))


@dataclass(frozen=True)
class DecodedCase:
    """A kernel for a level of instructions."""

    case: KernelCase
    target: Target

    def __str__(self) -> str:
        return f"{self.target.isa} {self.case}"

    def facts(self) -> Iterator[object]:
        """Every codec, set of files; every way to store values with levels, dtypes, structures."""
        template, spec = self.case.template, self.case.spec
        files = template.files(spec, self.case.schedule)  # type: ignore[attr-defined]
        coding = spec.coding
        stored = (coding.kind, coding.rounds, coding.offsets)
        yield (template, spec.format.codec)
        yield (template, self.target.isa, files)
        yield from ((template, stored, part) for part in (self.target.isa, spec.dtype))
        yield (template, coding.kind, spec.format.structure, spec.activations)


def every_case() -> Iterator[DecodedCase]:
    registry = default_registry()
    codecs = [registry.codec(name) for name in EXACT]
    codecs += [replace(registry.codec(name), lossless=True) for name in ROUNDED]  # type: ignore[type-var]
    for structure, codec, dtype, activations in product(
        map(registry.structure, STRUCTURES),
        codecs,
        (torch.float32, torch.bfloat16, torch.float16),
        ("float", "int8"),
    ):
        spec = KernelSpec(Format(structure, codec), dtype, (), activations)
        for template, target in product(TEMPLATES, TARGETS):
            if supports(template, spec, target):
                for schedule in template.schedules(spec, target):
                    yield DecodedCase(KernelCase(template, schedule, spec), target)


CASES = covering(every_case(), DecodedCase.facts)


def pack(spec: KernelSpec, n: int, k: int) -> Packed:
    """A weight as a lossy codec stores it: the lossless one of the same fields would as well."""
    form = spec.format
    weight = sparse_weight(form.structure, n, k, spec.dtype)
    if not form.codec.lossless:
        return form.pack(weight)
    lossy: Any = replace(form.codec, lossless=False)  # type: ignore[type-var]
    return replace(Format(form.structure, lossy).pack(weight), format=form)


@pytest.mark.parametrize("decoded", drawn(CASES, 8))
def test_decoded(
    decoded: DecodedCase,
    build_case: Callable[..., Kernel],
) -> None:
    kernel = build_case(decoded.case, target=decoded.target)
    for n, k in ((37, 101), (80, 288)):
        check(kernel, decoded.case.spec, n, k)


def check(kernel: Kernel, spec: KernelSpec, n: int, k: int) -> None:
    packed = pack(spec, n, k)
    weight, layout = packed.unpack(), kernel.prepack(packed)
    stored = weight.float() if spec.coding.rounds else packed.unpack(torch.float32)
    for exact in (weight, stored):
        like = torch.empty(0, dtype=exact.dtype)
        assert torch.equal(torch.ops.sparsecompile.unpack(layout, like, n, k, kernel.key), exact)

    def run(x: Tensor, bias: Tensor | None, operands: tuple[Tensor, ...]) -> Tensor:
        return ops.linear(x, layout[: ops.HEADER_BYTES], bias, operands, n, kernel.key)

    # What is rounded is held against the rounded weight.
    meant = Format(Dense(), Float()).pack(weight) if spec.coding.rounds else packed
    for m in (1, 2, 7, 40):
        check_law(spec, meant, (m,), m % 2 == 1, run)
