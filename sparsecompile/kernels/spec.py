"""Spec, Target and Schedule: plain data in which passes and code generation meet."""

from __future__ import annotations

import hashlib
import platform
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from typing_extensions import TypeVar

from sparsecompile.errors import Reject
from sparsecompile.kernels.gpu import GPU, GPUS

# Commands that say what was measured, and where, read this: torch takes seconds to import.
if TYPE_CHECKING:
    import torch

    from sparsecompile.formats.coding import Coding
    from sparsecompile.formats.packed import Format

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


def digest(*parts: str) -> str:
    """Twenty hexadecimal digits that stand for the given texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


class Spec(ABC):
    """Everything that a kernel of an operator depends on besides sizes: frozen and hashable.

    `str(spec)` begins with the operator's name and tells all fields: records and names are made
    of it.

    Attributes:
        dtype: of what a call takes and returns: float32, bfloat16 or float16.
    """

    operator: ClassVar[str]
    """Name of the `Operator`."""
    dtype: torch.dtype

    @property
    def plain(self) -> Spec:
        """Without the epilogue, if there is one: candidates are measured so."""
        return self

    @property
    def is_dense(self) -> bool:
        """Whether it reads what the model has as it is, so that a library serves it unpacked."""
        return False

    @property
    def identifier(self) -> str:
        """`str(self)` as a name that languages and file systems take."""
        name = "".join(c if c.isalnum() else "_" for c in str(self))
        while "__" in name:
            name = name.replace("__", "_")
        return name.strip("_")


@dataclass(frozen=True)
class KernelSpec(Spec):
    """Everything a packed linear's kernel depends on: `y = epilogue(a(x) @ W.T + bias)`.

    `x` is `[m, k]`, `W` `[n, k]` in `format`, `y` and the epilogue's operands `[m, n]`, `bias`
    `[n]` or absent. Every shape is a run-time value, so one kernel serves all layers of a model
    that share a format. Sums are accumulated in float32.

    Attributes:
        format: format of the weight.
        dtype: of x, bias, operands and y: float32, bfloat16 or float16.
        epilogue: names of `sparsecompile.kernels.epilogue.STEPS`, in order.
        activations: a name of `sparsecompile.kernels.prologue.ACTIVATIONS`: what `a` does to x
            before the product; `float` leaves it as it is, `int8` rounds every row to 8 bits.
    """

    operator: ClassVar[str] = "linear"
    format: Format
    dtype: torch.dtype
    epilogue: tuple[str, ...] = ()
    activations: str = "float"

    @property
    def plain(self) -> KernelSpec:
        """Without the epilogue."""
        return replace(self, epilogue=())

    @property
    def is_dense(self) -> bool:
        """Whether the weight is the dense one."""
        return self.format.structure.family == "dense" and self.format.codec.lossless

    @property
    def operands(self) -> int:
        """How many tensors the epilogue reads."""
        from sparsecompile.kernels.epilogue import STEPS

        return sum(STEPS[name].has_operand for name in self.epilogue)

    @property
    def coding(self) -> Coding:
        """How values of the weight are stored.

        Raises:
            Reject: in a way that no kernel reads.
        """
        from sparsecompile.formats.coding import readable

        return readable(self.format.codec.coding(self.dtype), str(self.format.codec))

    def __str__(self) -> str:
        """`linear n_m[2:4]/float bfloat16 silu`, `linear dense/int8 bfloat16 activations=int8`."""
        dtype = str(self.dtype).removeprefix("torch.")
        rounded = (f"activations={self.activations}",) if self.activations != "float" else ()
        return " ".join((self.operator, str(self.format), dtype, *self.epilogue, *rounded))


SpecOf: TypeAlias = "Callable[[Format, torch.dtype], Spec]"
"""Makes the spec of a node out of its weight's format and dtype."""
S = TypeVar("S", bound=Spec, default=KernelSpec)
"""The spec of a template, library call or problem: of packed linears unless it says otherwise."""


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


@dataclass(frozen=True)
class Schedule:
    """The tunable choices of a template, such as `Schedule({"batch_lanes": 64})`."""

    choices: tuple[tuple[str, int], ...] = field(default=())

    @classmethod
    def of(cls, choices: Mapping[str, int]) -> Schedule:
        """From a mapping; the order does not matter."""
        return cls(tuple(sorted(choices.items())))

    def __getitem__(self, name: str) -> int:
        """Value of one choice."""
        return dict(self.choices)[name]

    @property
    def tag(self) -> str:
        """Six hexadecimal digits that stand for it, for names."""
        return digest(str(self))[:6]

    def __str__(self) -> str:
        """`batch_lanes=64 decode_rows=8`."""
        return " ".join(f"{name}={value}" for name, value in self.choices)


def short_name(candidate: str) -> str:
    """Template and what the function is for, without the schedule: `strips decode`, `cutlass`."""
    template, *choices = candidate.split() or [candidate]
    last = (c.removeprefix("sc_linear_") for c in choices[-1:] if "=" not in c)
    return " ".join((template, *last))
