"""GPU: what is known of a GPU architecture without having one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class GPU:
    """An architecture and the largest device of it, as plain data.

    Attributes:
        arch: `sm_90`, `gfx942`.
        model: the device that the numbers below are of.
        vendor: `nvidia` or `amd`.
        warp_size: threads that run in step.
        units: streaming multiprocessors, or compute units.
        bandwidth: bytes a second from memory.
        rates: dense operations a second by kind, a multiply-add counting as two; a kind that has no
            matrix instruction is missing.
    """

    arch: str
    model: str
    vendor: str
    warp_size: int
    units: int
    bandwidth: float
    rates: Mapping[str, float]

    def __hash__(self) -> int:
        """By architecture."""
        return hash(self.arch)

    @cached_property
    def capability(self) -> tuple[int, int]:
        """`(9, 0)` of `sm_90`; `(0, 0)` where the vendor counts otherwise."""
        number = self.arch.removeprefix("sm_")
        return (int(number[:-1]), int(number[-1])) if number.isdecimal() else (0, 0)


def _gpu(
    arch: str, model: str, units: int, terabytes: float, *tera: float, vendor: str = "nvidia"
) -> GPU:
    rates = dict(zip(("float32", "float16", "int8"), (1e12 * t for t in tera), strict=True))
    rates["bfloat16"] = rates["float16"]
    warp_size = 32 if vendor == "nvidia" else 64
    return GPU(arch, model, vendor, warp_size, units, 1e12 * terabytes, rates)


GPUS: Mapping[str, GPU] = {
    gpu.arch: gpu
    for gpu in (
        _gpu("sm_75", "T4", 40, 0.320, 8.1, 65, 130),
        _gpu("sm_80", "A100 SXM 80GB", 108, 2.039, 19.5, 312, 624),
        _gpu("sm_86", "A40", 84, 0.696, 37.4, 149.7, 299.3),
        _gpu("sm_89", "L40S", 142, 0.864, 91.6, 362, 733),
        _gpu("sm_90", "H100 SXM", 132, 3.35, 67, 989, 1979),
        _gpu("sm_100", "B200", 148, 8.0, 75, 2250, 4500),
        _gpu("gfx942", "MI300X", 304, 5.3, 163.4, 1307, 2615, vendor="amd"),
    )
}
"""Architectures by name, with the figures of the vendors' data sheets, without sparsity."""
