"""TritonKernel: a kernel whose functions are in generated modules; kernels by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from sparsecompile.codegen.triton.fragment import structure_fragment
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.library import LibraryKernel
from sparsecompile.codegen.triton.module import import_module
from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.kernel import Kernel, Range


@dataclass(frozen=True, eq=False)
class TritonKernel(Kernel):
    """A kernel whose functions are in generated modules.

    Attributes:
        paths: the modules' files by name of their source, that of the layout first.
        launches: how its functions are started.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    launches: tuple[Launch, ...] = ()

    @property
    def path(self) -> Path:
        """The first module's file."""
        return next(iter(self.paths.values()))

    @cached_property
    def modules(self) -> Mapping[str, ModuleType]:
        """The modules by name of their source; imported when they are first needed.

        Raises:
            BuildError: there is no Triton.
        """
        return {name: import_module(path) for name, path in self.paths.items()}

    @property
    def module(self) -> ModuleType:
        """The first module.

        Raises:
            BuildError: there is no Triton.
        """
        return next(iter(self.modules.values()))

    @property
    def band(self) -> int | None:
        """Rows of a band of blocks; None where rows are read one by one."""
        structure: Any = self.spec.format.structure
        reads = structure_fragment(self.registry, structure).reads
        return structure.height if reads == "blocks" else None

    def launch_of(self, part: Range) -> Launch:
        """How a range is started."""
        wanted = (part.source, part.symbol)
        return next(each for each in self.launches if (each.source, each.symbol) == wanted)


GpuKernel = TritonKernel | LibraryKernel

_KERNELS: dict[int, GpuKernel] = {}


def remember_kernel(kernel: GpuKernel) -> GpuKernel:
    """Let ops find a kernel by its key; the first one of a key stays."""
    return _KERNELS.setdefault(kernel.key, kernel)


def find_kernel(key: int) -> GpuKernel:
    """The kernel of a key.

    Raises:
        SparseCompileError: there is none in this process.
    """
    found = _KERNELS.get(key)
    if found is None:
        raise SparseCompileError(f"there is no Triton kernel {key} in this process")
    return found
