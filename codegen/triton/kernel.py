"""TritonKernel: a kernel whose functions are in a generated module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from sparsecompile.codegen.triton.fragment import structure_fragment
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.module import import_module
from sparsecompile.errors import SparseCompileError
from sparsecompile.template import Kernel, Range


@dataclass(frozen=True, eq=False)
class TritonKernel(Kernel):
    """A kernel for GPUs.

    Attributes:
        path: the generated module.
        launches: how its functions are started.
    """

    path: Path = Path()
    launches: tuple[Launch, ...] = ()

    @cached_property
    def module(self) -> ModuleType:
        """Its functions; imported when they are first needed.

        Raises:
            BuildError: there is no Triton.
        """
        return import_module(self.path)

    @property
    def band(self) -> int | None:
        """Rows of a band of blocks; None where rows are read one by one."""
        structure: Any = self.spec.format.structure
        reads = structure_fragment(self.registry, structure).reads
        return structure.height if reads == "blocks" else None

    def range_at(self, m: int) -> Range:
        """What serves this m."""
        return next(r for r in self.ranges if r.largest_m is None or m <= r.largest_m)

    def launch_of(self, part: Range) -> Launch:
        """How a range is started."""
        return next(launch for launch in self.launches if launch.symbol == part.symbol)


_KERNELS: dict[int, TritonKernel] = {}


def remember_kernel(kernel: TritonKernel) -> TritonKernel:
    """Let ops find a kernel by its key; the first one of a key stays."""
    return _KERNELS.setdefault(kernel.key, kernel)


def find_kernel(key: int) -> TritonKernel:
    """The kernel of a key.

    Raises:
        SparseCompileError: there is none in this process.
    """
    found = _KERNELS.get(key)
    if found is None:
        raise SparseCompileError(f"there is no Triton kernel {key} in this process")
    return found
