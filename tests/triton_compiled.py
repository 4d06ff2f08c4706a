"""Kernels compiled for a GPU that is not there, and what can be read from the machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.signature import Signature, linear_signature


@dataclass(frozen=True)
class Compiled:
    """What became of a function.

    Attributes:
        registers: of a thread.
        spilled: registers that were spilled to memory.
        stack: bytes of a thread in local memory.
        matrix: matrix instructions in it, by name.
        text: PTX, or AMD's assembly.
        ir: Triton's own, before it is told what the GPU is.
    """

    registers: int
    spilled: int
    stack: int
    matrix: tuple[str, ...]
    text: str
    ir: str


def compile_launch(kernel: TritonKernel, launch: Launch, arch: str, splits: int = 1) -> Compiled:
    """The function that a launch starts."""
    signature = linear_signature(kernel.spec, launch, splits=splits)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    return _read(compile_function(kernel, launch.function, signature, arch, options), arch)


def compile_function(
    kernel: TritonKernel, function: str, signature: Signature, arch: str, options: dict[str, Any]
) -> Any:
    """One function of a kernel's module."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(signature.types)
    constants = {(names.index(name),): value for name, value in signature.constants.items()}
    source = ASTSource(
        getattr(kernel.module, function), signature.types, constants, signature.attributes()
    )
    is_amd = arch.startswith("gfx")
    target = GPUTarget("hip", arch, 64) if is_amd else GPUTarget("cuda", int(arch[3:]), 32)
    return triton.compile(source, target=target, options=options)


def _read(compiled: Any, arch: str) -> Compiled:
    if arch.startswith("gfx"):
        return _read_amd(compiled)
    tools, cubin = _tools(), compiled.asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _run(tools / "cuobjdump", "-res-usage", file.name)
        code = _run(tools / "nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found is not None, usage
    operations = re.findall(r"\b([A-Z][A-Z0-9]+(?:\.\w[\w.]*)?)[ ;]", code)
    spilled = sum(name.split(".")[0] in ("STL", "LDL") for name in operations)
    matrix = tuple(n for n in operations if re.match(r"(HMMA|IMMA|HGMMA|IGMMA)", n))
    stack = int(found[2]) + int(found[3])
    ir = compiled.asm["ttir"]
    return Compiled(int(found[1]), spilled, stack, matrix, compiled.asm["ptx"], ir)


def _read_amd(compiled: Any) -> Compiled:
    text = compiled.asm["amdgcn"]

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", text)
        assert found is not None, name
        return int(found[1])

    matrix = tuple(re.findall(r"^\s+(v_mfma\w+)", text, re.MULTILINE))
    spilled, stack = number("vgpr_spill_count"), number("private_segment_fixed_size")
    return Compiled(number("vgpr_count"), spilled, stack, matrix, text, compiled.asm["ttir"])


@cache
def _tools() -> Path:
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
