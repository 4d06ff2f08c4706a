"""How a KernelSpec becomes code: Template, Fragment, Source, Kernel and Codegen."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile.component import Component
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.spec import KernelSpec, S, Schedule, digest
from sparsecompile.kernels.target import Target
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
        stages: functions that all threads of a region may call, each for its part, with a
            workspace of its own; and for how many rows.
    """

    name: str
    language: str
    text: str
    kernels: tuple[tuple[str, int | None], ...]
    prepacks: bool = False
    isa: str = ""
    stages: tuple[tuple[str, int], ...] = ()

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
