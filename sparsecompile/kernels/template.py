"""How a KernelSpec becomes code: Template, Fragment, Source, Kernel and Codegen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor

from sparsecompile.component import Component
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.problem import Problem, Trial
from sparsecompile.kernels.spec import KernelSpec, S, Schedule, Target, digest
from sparsecompile.registry import Registry


@dataclass(frozen=True)
class Source:
    """Generated source text and the functions in it.

    Attributes:
        name: stem of its file.
        language: `cpp` or `triton`.
        text: the source.
        kernels: `(symbol, largest m or None)`, by rising m: the function for each range of rows.
            Each also serves every smaller m.
        prepacks: whether its own `sc_prepack` makes the layout out of what `Template.prepack`
            returns.
        isa: the instruction set that it is built for; empty for the target's.
    """

    name: str
    language: str
    text: str
    kernels: tuple[tuple[str, int | None], ...]
    prepacks: bool = False
    isa: str = ""

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.{'cpp' if self.language == 'cpp' else 'py'}"

    @property
    def digest(self) -> str:
        """Stands for the text."""
        return digest(self.language, self.text)


class Fragment(Component):
    """How one family of structures or codecs is read in one language.

    Templates that serve every structure x codec are assembled from these; see
    `sparsecompile.codegen.cpp` for the functions that a C++ fragment defines.
    """

    language: ClassVar[str]
    family: ClassVar[str]

    @property
    def name(self) -> str:
        """`cpp/n_m`; unique in a registry."""
        return f"{self.language}/{self.family}"

    @abstractmethod
    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Source text for this structure or codec in a kernel for `spec`."""


class Template(Packer[S], Component):
    """A way to generate kernels for specs."""

    language: ClassVar[str]

    @abstractmethod
    def supports(self, spec: S, target: Target, registry: Registry) -> None:
        """Return if this template can serve the spec on the target: every field of the spec.

        Raises:
            Reject: it cannot; the reason says what is missing.
        """

    @abstractmethod
    def render(self, spec: S, schedule: Schedule, target: Target, registry: Registry) -> Source:
        """The source: readable, and the same text for the same arguments."""


@dataclass(frozen=True)
class Range:
    """Which function of a kernel serves which rows.

    Attributes:
        largest_m: the last m it serves, or None for all that are left.
        source: name of the source that it is in; empty of a library call.
        symbol: its name there, or that of the library call.
        schedule: of that source.
        dense: whether the dense linear of torch runs instead, where its weight is at hand.
    """

    largest_m: int | None
    source: str
    symbol: str
    schedule: Schedule
    dense: bool = False

    def __str__(self) -> str:
        """`m <= 8: sc_linear_decode of strips_...`, `any m: cusparselt alg_id=0`."""
        where = f"m <= {self.largest_m}" if self.largest_m is not None else "any m"
        called = f"{self.symbol} {self.schedule}".strip()
        what = f"{self.symbol} of {self.source}" if self.source else called
        return f"{where}: {'dense' if self.dense else what}"


@dataclass(frozen=True, eq=False)
class Kernel(Generic[S]):
    """A kernel that is built, loaded and known to the op `sparsecompile::linear` by its key.

    Attributes:
        key: what graphs call it.
        spec: what it computes.
        template: makes its layout: a `Template`, or a library call.
        schedule: of that template.
        sources: everything that was generated for it, the layout's own first; none for a library
            call.
        ranges: by rising m.
        registry: what it was made of.
        relayout: makes the layout out of what `template.prepack` returns, if that is not it.
        device: where it runs: `cpu` or `cuda`.
        origins: by source, the cache folder that its library is from, empty where this process has
            built it; none for what is not built ahead.
    """

    key: int
    spec: S
    template: Packer[Any]
    schedule: Schedule
    sources: tuple[Source, ...]
    ranges: tuple[Range, ...]
    registry: Registry
    relayout: Callable[[Tensor], Tensor] | None = None
    device: str = "cpu"
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """Name of the layout that it reads."""
        return self.template.layout(self.schedule)

    @property
    def wants_dense(self) -> bool:
        """Whether the dense linear serves some rows."""
        return any(r.dense for r in self.ranges)

    def range_at(self, m: int) -> Range:
        """What serves this m."""
        return next(r for r in self.ranges if r.largest_m is None or m <= r.largest_m)

    def prepack(self, packed: Packed) -> Tensor:
        """The weight as this kernel reads it: `[bytes]` uint8, on the CPU."""
        layout = self.template.prepack(packed, self.schedule, self.registry)
        return self.relayout(layout) if self.relayout is not None else layout

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What the op takes: what `prepack` gave, on the device, or what a library makes of it.

        Args:
            layout: on the device that it will be used on.
            shape: `(n, k)` of the weight.
            dtype: of the weight.
        """
        return layout


@dataclass(frozen=True)
class Lowering:
    """What became of a problem.

    Attributes:
        kernel: the kernel, or None where the dense linear serves every m.
        trials: what was measured, now or at an earlier time.
        reason: why it was chosen.
        dropped: candidates that were not measured after all, each with the reason.
        is_choice: false where dense serves because no candidate could be measured.
        is_open: whether another layout may be the best one where other m come too.
    """

    kernel: Kernel[Any] | None
    trials: tuple[Trial, ...]
    reason: str
    dropped: tuple[tuple[str, str], ...] = ()
    is_choice: bool = True
    is_open: bool = False

    def because(self, why: str) -> Lowering:
        """With one more reason."""
        return replace(self, reason=f"{self.reason}; {why}")


@dataclass(frozen=True)
class Device:
    """Where a Compiler's kernels run, and what can be generated for it."""

    codegen: Codegen
    target: Target
    registry: Registry

    def check(self, spec: Any) -> None:
        """Return if some kernel can serve the spec.

        Raises:
            Reject: none can; every refusal is in the reason.
        """
        self.codegen.candidates(spec, self.target, self.registry)

    def lower(
        self, problems: Mapping[Problem[Any], Callable[[], Packed]]
    ) -> dict[Problem[Any], Lowering]:
        """See `Codegen.lower`."""
        return self.codegen.lower(problems, self.target, self.registry)


class Codegen(Component):
    """Code generation for one kind of device: spec -> candidates -> choice -> build -> kernel."""

    device: ClassVar[str]
    switches: ClassVar[bool] = False
    """Whether graphs that are compiled can be switched to another layout of their weights."""

    @property
    def name(self) -> str:
        """The device; unique in a registry."""
        return self.device

    @abstractmethod
    def sources_digest(self) -> str:
        """Stands for everything generated code depends on besides the spec."""

    def start(self) -> None:
        """Begin, beside the caller, what takes long and any kernel will need.

        Called as soon as a weight can be packed, while other weights are looked at.
        """

    def nothing_to_gain(
        self, shape: tuple[int, int], rows: tuple[int, ...], dtype: torch.dtype
    ) -> str:
        """Why no packed linear `(n, k)` can beat the dense one at these m; empty if one may."""
        return ""

    def dense_copy(self, dtype: torch.dtype) -> DenseCopy | None:
        """How a dense weight is kept where it needs a copy anyway; None for torch's own order."""
        return None

    def read_bandwidth(self) -> float | None:
        """Bytes a second that the device reads from memory, if known; nothing is measured now."""
        return None

    def op(self, kernel: Kernel[Any], problem: Problem[Any]) -> Any:
        """The op that a graph calls a kernel by, where it is not the operator's own; else None."""
        return None

    def serve(self, call: int, kernel: Kernel[Any]) -> None:
        """Let a call in graphs run this kernel from now on, on weights that have its layout.

        Where they have the layout of another kernel that serves the call, that one runs. Only for
        code generation that `switches`; else graphs call kernels by their keys.
        """
        raise NotImplementedError

    @abstractmethod
    def candidates(self, spec: Any, target: Target, registry: Registry) -> Sequence[Any]:
        """Everything that can serve the spec, best guess first.

        Raises:
            Reject: nothing can; every refusal is in the reason.
        """

    @abstractmethod
    def lower(
        self,
        problems: Mapping[Problem[Any], Callable[[], Packed]],
        target: Target,
        registry: Registry,
    ) -> dict[Problem[Any], Lowering]:
        """Choose a candidate for each problem; generate, build and load what was chosen.

        Args:
            problems: each with a function that packs one of the weights it stands for.
            target: where they run.
            registry: what candidates are made of.

        Raises:
            Reject: there are no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
