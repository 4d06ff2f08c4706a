"""Functions of kernels, compiled for a GPU that is not there with signatures of one's own."""

from __future__ import annotations

from typing import Any

from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.signature import Signature, linear_signature


def compile_launch(
    kernel: TritonKernel, launch: Launch, arch: str, splits: int = 1
) -> dict[str, Any]:
    """The function that a launch starts, in every language on its way."""
    signature = linear_signature(kernel.spec, launch, splits=splits)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    asm: dict[str, Any] = compile_function(kernel, launch.function, signature, arch, options).asm
    return asm


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
