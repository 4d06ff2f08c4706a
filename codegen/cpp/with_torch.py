"""Libraries that are built with torch's headers and linked to it."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.codegen.cpp.compiler import Compiler

T = TypeVar("T")


def load_with_torch(name: str, text: str, load: Callable[[Path], T], *defined: str) -> T:
    """`load_built` with torch's headers and Python's.

    Args:
        name: stem of the files.
        text: the C++ source.
        load: as for `load_built`.
        defined: macros for it, such as `SC_MAX_RANGES=16`.

    Raises:
        BuildError: no compiler, or it failed.
        CacheError: the cache folder cannot be used.
    """
    macros = tuple(f"-D{macro}" for macro in defined)
    return load_built(name, text, lambda compiler: (*_flags(compiler), *macros), load, _places())


def _flags(compiler: Compiler) -> tuple[str, ...]:
    """Flags for any of them; the versions are there for the cache's key."""
    return (
        "-std=c++20",
        "-O2",
        *("-shared", "-fPIC", "-fvisibility=hidden"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f'-DSC_TORCH_VERSION="{torch.__version__}"',
        f'-DSC_PYTHON="{sysconfig.get_config_var("SOABI")}"',
    )


def _places() -> tuple[str, ...]:
    """Where torch and Python are."""
    root = Path(torch.__file__).parent
    return (
        f"-isystem{root / 'include'}",
        f"-isystem{root / 'include/torch/csrc/api/include'}",
        f"-isystem{sysconfig.get_path('include')}",
        f"-L{root / 'lib'}",
        "-ltorch_cpu",
        "-lc10",
    )
