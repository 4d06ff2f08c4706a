"""Built: one generated source as a loaded library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.build import load_built, open_library
from sparsecompile.codegen.cpp.compiler import Compiler
from sparsecompile.codegen.cpp.memory import allocate
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source

LEAST_STRIP_ROWS = 8
"""`sc_prepack_size` may keep two numbers for so many rows."""


@dataclass(frozen=True, eq=False)
class Built:
    """The functions of a source.

    Attributes:
        source: what was built.
        path: of the library.
        library: the library, which stays loaded.
        functions: addresses by symbol.
    """

    source: Source
    path: Path
    library: ctypes.CDLL
    functions: dict[str, int]

    def relayout(self, layout: int) -> Callable[[Tensor], Tensor] | None:
        """What turns canonical tensors into this source's layout, if it has one of its own.

        Args:
            layout: the number that the new layout's header gets.
        """
        if not self.source.prepacks:
            return None

        def convert(canonical: Tensor) -> Tensor:
            threads = torch.get_num_threads()
            rows = int(canonical[8:16].view(torch.int64))
            sizes = torch.zeros(2 * -(-rows // LEAST_STRIP_ROWS), dtype=torch.int64)
            arguments = (canonical.data_ptr(), sizes.data_ptr())
            total = self.library.sc_prepack_size(*arguments, threads)
            out = allocate(total, stays=True)
            self.library.sc_prepack(*arguments, out.data_ptr(), total, layout, threads)
            return out

        return convert


def load_source(source: Source, target: Target, symbols: Sequence[str] = ()) -> Built:
    """Build a source, or take it from the cache, and load it.

    Args:
        source: the source.
        target: where it runs.
        symbols: what it exports besides the functions of its ranges.

    Raises:
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
    """
    built_for = replace(target, isa=source.isa or target.isa)

    def flags(compiler: Compiler) -> tuple[str, ...]:
        return compiler.flags(built_for)

    def load(path: Path) -> Built:
        library = open_library(path)
        if source.prepacks:
            pointer, integer = ctypes.c_void_p, ctypes.c_int64
            library.sc_prepack_size.argtypes = (pointer, pointer, integer)
            library.sc_prepack_size.restype = integer
            library.sc_prepack.argtypes = (pointer, pointer, pointer, integer, integer, integer)
            library.sc_prepack.restype = None
        names = (*(symbol for symbol, _ in source.kernels), *symbols)
        return Built(source, path, library, {name: _address(library, name) for name in names})

    return load_built(source.name, source.text, flags, load)


def _address(library: ctypes.CDLL, symbol: str) -> int:
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0
