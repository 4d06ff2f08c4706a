"""Target: where kernels run, an instruction set of CPUs or a GPU architecture."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecompile.errors import Reject
from sparsecompile.kernels.gpu import GPU, GPUS

# Commands that say what was measured, and where, read this: torch takes seconds to import.
if TYPE_CHECKING:
    import torch

ISA_LEVELS: Mapping[str, frozenset[str]] = {
    "portable": frozenset(),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "avx512_bf16": frozenset({"avx512_vnni", "avx512_bf16", "avx512vbmi", "avx512_vbmi2"}),
    "amx": frozenset({"amx_tile", "amx_bf16", "amx_int8"}),
}
"""Instruction set levels and the CPU features each adds to the ones before it."""


def isa_at_least(isa: str, level: str) -> bool:
    """Whether a level includes another."""
    levels = list(ISA_LEVELS)
    return levels.index(isa) >= levels.index(level)


@dataclass(frozen=True)
class Target:
    """Where kernels run.

    Attributes:
        device: `cpu` or `cuda`, which is also what torch calls AMD's GPUs.
        arch: machine architecture, such as `x86_64`, or GPU architecture, such as `sm_90`.
        isa: instruction set a template may use: one of `ISA_LEVELS`; a GPU's is its `arch`.
    """

    device: str
    arch: str
    isa: str

    @classmethod
    def host(cls) -> Target:
        """The CPU this process runs on."""
        return cls("cpu", platform.machine().lower(), _host_isa())

    @classmethod
    def parse(cls, name: str) -> Target:
        """The GPU architecture of a name, at hand or not: `sm_90`, `gfx942`.

        Raises:
            ValueError: nothing is known of it.
        """
        if name not in GPUS:
            raise ValueError(f"no GPU architecture {name!r}; known: {', '.join(GPUS)}")
        return cls("cuda", name, name)

    @classmethod
    def of_gpu(cls, device: torch.device) -> Target:
        """The GPU that torch calls by this name.

        An architecture that is not in `GPUS` is taken for the newest one before it.

        Raises:
            Reject: there is no such GPU on this machine, or nothing like it is known.
        """
        import torch

        if not torch.cuda.is_available():
            raise Reject(
                f"there is no GPU for {device} on this machine; name the architecture to compile "
                "for with the option 'target', such as 'sm_90'"
            )
        properties = torch.cuda.get_device_properties(device)
        if torch.version.hip:
            arch = properties.gcnArchName.partition(":")[0]
            known = [arch] if arch in GPUS else []
        else:
            found = (properties.major, properties.minor)
            capabilities = {gpu.capability: arch for arch, gpu in GPUS.items()}
            known = [capabilities[c] for c in sorted(capabilities) if (0, 0) < c <= found]
        if not known:
            raise Reject(f"{properties.name} is of no known architecture: {', '.join(GPUS)}")
        return cls.parse(known[-1])

    @property
    def gpu(self) -> GPU:
        """What is known of the GPU architecture.

        Raises:
            Reject: this is no GPU.
        """
        if self.device != "cuda" or self.arch not in GPUS:
            raise Reject(f"a GPU is needed, the target is {self}")
        return GPUS[self.arch]

    def __str__(self) -> str:
        """`cpu x86_64 avx512`, `cuda sm_90`."""
        return " ".join(dict.fromkeys((self.device, self.arch, self.isa)))


@cache
def _host_isa() -> str:
    """The highest level whose features, and those of all before it, this CPU has."""
    found = "portable"
    flags = _cpu_flags()
    for level, features in ISA_LEVELS.items():
        if not features <= flags:
            break
        found = level
    return found


def _cpu_flags() -> frozenset[str]:
    """Features that Linux lists; elsewhere what torch says it uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        import torch

        known = list(ISA_LEVELS)
        level = torch.backends.cpu.get_cpu_capability().lower()
        used = known[: known.index(level) + 1] if level in known else []
        return frozenset().union(*(ISA_LEVELS[name] for name in used))
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
