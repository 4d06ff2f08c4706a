"""Spec, Target and Schedule: plain data in which passes and code generation meet."""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from typing_extensions import TypeVar

# Commands that say what was measured, and where, read this: torch takes seconds to import.
if TYPE_CHECKING:
    import torch

    from sparsecompile.formats.coding import Coding
    from sparsecompile.formats.packed import Format


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
    baseline: ClassVar[str] = "dense"
    """What the model has in place of a kernel, as reports call it."""
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
        return self.format.structure.family == "dense" and self.format.codec.family == "float"

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
