"""How a KernelSpec becomes code: Template, Extern, Fragment, Source, Kernel and Codegen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from sparsecompile.packed import Codec, Packed, Structure
from sparsecompile.spec import KernelSpec, Schedule, Target, digest

if TYPE_CHECKING:
    from sparsecompile.registry import Registry


@dataclass(frozen=True)
class Source:
    """Generated source text and the functions in it.

    Attributes:
        name: stem of its file.
        language: `cpp`.
        text: the source.
        kernels: `(symbol, largest m or None)`, by rising m: the function for each range of rows.
    """

    name: str
    language: str
    text: str
    kernels: tuple[tuple[str, int | None], ...]

    @property
    def digest(self) -> str:
        """Stands for the text."""
        return digest(self.language, self.text)


class Fragment(ABC):
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


class Template(ABC):
    """A way to generate kernels for specs; the first schedule is the default."""

    name: ClassVar[str]
    language: ClassVar[str]

    @abstractmethod
    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if this template can serve the spec on the target: every field of the spec.

        Raises:
            Reject: it cannot; the reason says what is missing.
        """

    @abstractmethod
    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The schedules worth trying, best guess first."""

    @abstractmethod
    def prepack(self, packed: Packed, schedule: Schedule) -> Tensor:
        """The physical layout: one contiguous `[bytes]` uint8 tensor, made once for all m.

        It holds no thread count and no pointer.
        """

    @abstractmethod
    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """The source: readable, and the same text for the same arguments."""


class Extern(ABC):
    """A library call for a spec, a candidate beside the templates."""

    name: ClassVar[str]

    @abstractmethod
    def supports(self, spec: KernelSpec, target: Target) -> None:
        """Return if the library can serve the spec on the target.

        Raises:
            Reject: it cannot.
        """


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel that is built, loaded and known to the op `sparsecompile::linear` by its key."""

    key: int
    spec: KernelSpec
    template: Template
    schedule: Schedule
    source: Source

    def prepack(self, packed: Packed) -> Tensor:
        """The weight as this kernel reads it: `[bytes]` uint8."""
        return self.template.prepack(packed, self.schedule)


@dataclass(frozen=True)
class Device:
    """Where a Compiler's kernels run, and what can be generated for it."""

    codegen: Codegen
    target: Target
    registry: Registry

    def check(self, spec: KernelSpec) -> None:
        """Return if some kernel can serve the spec.

        Raises:
            Reject: none can; every refusal is in the reason.
        """
        self.codegen.candidates(spec, self.target, self.registry)

    def lower(self, spec: KernelSpec) -> Kernel | Extern:
        """See `Codegen.lower`."""
        return self.codegen.lower(spec, self.target, self.registry)


class Codegen(ABC):
    """Code generation for one kind of device: spec -> candidates -> choice -> build -> kernel."""

    device: ClassVar[str]

    @property
    def name(self) -> str:
        """The device; unique in a registry."""
        return self.device

    @abstractmethod
    def sources_digest(self) -> str:
        """Stands for everything generated code depends on besides the spec."""

    @abstractmethod
    def candidates(self, spec: KernelSpec, target: Target, registry: Registry) -> Sequence[Any]:
        """Everything that can serve the spec, best guess first.

        Raises:
            Reject: nothing can; every refusal is in the reason.
        """

    @abstractmethod
    def lower(self, spec: KernelSpec, target: Target, registry: Registry) -> Kernel | Extern:
        """Choose a candidate; generate, build and load it where it is a template's.

        Called from several threads at once.

        Raises:
            Reject: there are no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
