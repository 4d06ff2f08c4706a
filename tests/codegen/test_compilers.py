"""Kernels by every other compiler that is installed: old versions of GCC, and clang."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import TEMPLATES, supports

from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry

NAMES = (*(f"g++-{v}" for v in range(9, 17)), *(f"clang++-{v}" for v in range(11, 23)), "clang++")
FOUND = {name: os.path.realpath(path) for name in NAMES if (path := shutil.which(name))}
# All other tests build with the one that `c++` is.
OTHERS = [name for name in FOUND if FOUND[name] != os.path.realpath(shutil.which("c++") or "")]
FORMATS = ("bitmap", "n_m[2:4]/int8")


@pytest.mark.parametrize("name", OTHERS or [pytest.param("", marks=pytest.mark.skip("no other"))])
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: str(template.name))
@pytest.mark.usefixtures("shared_cache")
def test_kernels_by_another_compiler(
    name: str,
    template: Template,
    registry: Registry,
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", name)
    assert Path(find_compiler().command[0]).name == name
    target, codegen = Target.host(), CppCodegen()
    for format in FORMATS:
        spec = KernelSpec(registry.format(format), torch.bfloat16, ("gelu",))
        if not supports(template, spec, target):
            continue
        for schedule in template.schedules(spec, target):
            kernel = codegen.build(spec, template, schedule, target, registry)
            packed = pack(kernel, 37, 101)
            for m in (1, 3, 20):
                check_linear(kernel, packed, (m,), m == 3)
