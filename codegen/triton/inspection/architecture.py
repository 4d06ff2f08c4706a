"""Architecture: what a multiprocessor of a GPU holds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecompile.errors import OptionError
from sparsecompile.kernels.gpu import GPU, GPUS

_KIB = 1024


@dataclass(frozen=True)
class Architecture:
    """Limits of one multiprocessor (AMD: compute unit); what the device reaches is in `gpu`.

    From the CUDA C++ Programming Guide, "Compute Capabilities", and the LLVM AMDGPU usage guide.

    Attributes:
        name: `sm_90`, `gfx942`.
        partitions: a multiprocessor's schedulers, each with registers of its own.
        registers: 32-bit registers of a partition.
        register_unit: registers in which a warp (AMD: wave) gets them.
        thread_registers: the most that a thread can have.
        warps: the most that a multiprocessor holds.
        blocks: the most that a multiprocessor holds.
        shared: bytes of shared memory (AMD: LDS) of a multiprocessor.
        block_shared: the most of it that a block can have.
        reserved_shared: that the system takes of it for each block.
        shared_unit: bytes in which a block gets it.
        matrix: its kinds of matrix instructions, the fastest first.
    """

    name: str
    partitions: int
    registers: int
    register_unit: int
    thread_registers: int
    warps: int
    blocks: int
    shared: int
    block_shared: int
    reserved_shared: int
    shared_unit: int
    matrix: tuple[str, ...]

    @property
    def gpu(self) -> GPU:
        """The device whose bandwidth and rates count."""
        return GPUS[self.name]

    @property
    def triton(self) -> tuple[str, int | str, int]:
        """What `triton.backends.compiler.GPUTarget` is made of: `("cuda", 90, 32)`."""
        if self.gpu.vendor == "nvidia":
            return "cuda", int(self.name.removeprefix("sm_")), self.gpu.warp_size
        return "hip", self.name, self.gpu.warp_size


def _nvidia(name: str, warps: int, blocks: int, shared: int, *matrix: str) -> Architecture:
    """An NVIDIA GPU; `shared` in KiB, of which the system takes one for each block."""
    return Architecture(
        name=name,
        partitions=4,
        registers=16384,
        register_unit=256,
        thread_registers=255,
        warps=warps,
        blocks=blocks,
        shared=shared * _KIB,
        block_shared=(shared - 1) * _KIB,
        reserved_shared=_KIB,
        shared_unit=128,
        matrix=matrix,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    found.name: found
    for found in (
        _nvidia("sm_80", 64, 32, 164, "mma.sync"),
        _nvidia("sm_86", 48, 16, 100, "mma.sync"),
        _nvidia("sm_89", 48, 24, 100, "mma.sync"),
        _nvidia("sm_90", 64, 32, 228, "wgmma", "mma.sync"),
        _nvidia("sm_100", 64, 32, 228, "tcgen05", "mma.sync"),
        Architecture(
            name="gfx942",
            partitions=4,
            registers=512 * 64,
            register_unit=8 * 64,
            thread_registers=512,
            warps=32,
            blocks=16,
            shared=64 * _KIB,
            block_shared=64 * _KIB,
            reserved_shared=0,
            shared_unit=512,
            matrix=("mfma",),
        ),
    )
}
"""Architectures that kernels can be compiled for, by name."""


def architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        OptionError: nothing can be compiled for it.
    """
    if name not in ARCHITECTURES:
        raise OptionError(
            "target", f"nothing can be compiled for {name!r}; known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
