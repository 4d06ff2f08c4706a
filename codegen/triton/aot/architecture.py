"""Architecture: limits and peaks of the GPUs that kernels can be compiled for, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecompile.errors import OptionError

_KIB = 1024
_TERA = 1e12


@dataclass(frozen=True)
class Architecture:
    """What one multiprocessor (AMD: compute unit) holds, and what one device of it reaches.

    Attributes:
        name: `sm_90`, `gfx942`.
        device: the GPU that bandwidth and rates are of.
        backend: Triton's name of the compiler: `cuda` or `hip`.
        warp: threads of a warp (AMD: wave).
        partitions: a multiprocessor's schedulers, each with registers of its own.
        registers: 32-bit registers of a partition.
        register_unit: registers in which a warp gets them.
        thread_registers: the most that a thread can have.
        warps: the most that a multiprocessor holds.
        blocks: the most that a multiprocessor holds.
        shared: bytes of shared memory (AMD: LDS) of a multiprocessor.
        block_shared: the most of it that a block can have.
        reserved_shared: that the system takes of it for each block.
        shared_unit: bytes in which a block gets it.
        matrix: its kinds of matrix instructions, the fastest first.
        bandwidth: bytes a second from memory.
        rates: operations a second by `Cost.kind`, dense matrices, sums in float32 or int32.
        source: where the figures are from.
    """

    name: str
    device: str
    backend: str
    warp: int
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
    bandwidth: float
    rates: Mapping[str, float]
    source: str

    @property
    def number(self) -> int | str:
        """What Triton calls it: 90, `gfx942`."""
        return int(self.name.removeprefix("sm_")) if self.backend == "cuda" else self.name


def _cuda(
    number: int,
    device: str,
    *,
    warps: int,
    blocks: int,
    shared: int,
    matrix: tuple[str, ...],
    terabytes: float,
    tera: tuple[float, float, float],
    source: str,
) -> Architecture:
    """An NVIDIA GPU; `tera` are operations a second of float32, float16 and int8, in 1e12."""
    return Architecture(
        name=f"sm_{number}",
        device=device,
        backend="cuda",
        warp=32,
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
        bandwidth=terabytes * _TERA,
        rates=_rates(*tera),
        source=f"{source}; limits: CUDA C++ Programming Guide, compute capabilities",
    )


def _rates(float32: float, float16: float, int8: float) -> dict[str, float]:
    return {
        "float32": float32 * _TERA,
        "float16": float16 * _TERA,
        "bfloat16": float16 * _TERA,
        "int8": int8 * _TERA,
    }


_GFX942 = Architecture(
    name="gfx942",
    device="MI300X",
    backend="hip",
    warp=64,
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
    bandwidth=5.3 * _TERA,
    rates=_rates(163.4, 1307.4, 2614.9),
    source="AMD Instinct MI300X data sheet; limits: LLVM AMDGPU usage guide, gfx942",
)

ARCHITECTURES: Mapping[str, Architecture] = {
    a.name: a
    for a in (
        _cuda(
            80,
            "A100 80GB SXM",
            warps=64,
            blocks=32,
            shared=164,
            matrix=("mma.sync",),
            terabytes=2.039,
            tera=(19.5, 312, 624),
            source="NVIDIA A100 data sheet",
        ),
        _cuda(
            86,
            "A10",
            warps=48,
            blocks=16,
            shared=100,
            matrix=("mma.sync",),
            terabytes=0.6,
            tera=(31.2, 125, 250),
            source="NVIDIA A10 data sheet",
        ),
        _cuda(
            89,
            "L40S",
            warps=48,
            blocks=24,
            shared=100,
            matrix=("mma.sync",),
            terabytes=0.864,
            tera=(91.6, 362, 733),
            source="NVIDIA L40S data sheet",
        ),
        _cuda(
            90,
            "H100 SXM",
            warps=64,
            blocks=32,
            shared=228,
            matrix=("wgmma", "mma.sync"),
            terabytes=3.35,
            tera=(67, 989.4, 1978.9),
            source="NVIDIA H100 data sheet",
        ),
        _cuda(
            100,
            "HGX B200",
            warps=64,
            blocks=32,
            shared=228,
            matrix=("tcgen05", "mma.sync"),
            terabytes=8.0,
            tera=(80, 2250, 4500),
            source="NVIDIA Blackwell architecture technical brief, HGX B200",
        ),
        _GFX942,
    )
}
"""Architectures by name. Rates with 2:4 tensor cores are not among them: Triton has no such dot."""


def architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        OptionError: nothing is known of it.
    """
    if name not in ARCHITECTURES:
        raise OptionError(
            "target", f"no GPU target {name!r} is known; known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
