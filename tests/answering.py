"""A small library, built and kept as kernels are."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.codegen.cpp.compiler import Compiler
from sparsecompile.kernels.target import Target

TEXT = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'


def flags(compiler: Compiler) -> tuple[str, ...]:
    return compiler.flags(Target.host())


def answer(path: Path) -> int:
    result: int = ctypes.CDLL(str(path)).answer()
    return result


def build(text: str = TEXT) -> int:
    return load_built("answer", text, flags, answer)


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.glob("answer-*.so"))
