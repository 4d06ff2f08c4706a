"""From generated text to a loaded shared library, through the cache."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.codegen.host import host_cpu
from sparsecompile.errors import BuildError
from sparsecompile.kernels.spec import digest

logger = logging.getLogger("sparsecompile")
T = TypeVar("T")
FORMAT_VERSION = "1"
"""Changes when libraries built by an older version must not be used any more."""
_new: set[Path] = set()
"""What this process has built."""


def load_built(
    name: str,
    text: str,
    flags: Callable[[Compiler], tuple[str, ...]],
    load: Callable[[Path], T],
    places: tuple[str, ...] = (),
) -> T:
    """Build a shared library unless the cache has it, and load it.

    An entry that is not whole, or that `load` cannot use, is built again. The source is kept
    beside the library.

    Args:
        name: stem of the files.
        text: the C++ source.
        flags: compiler flags, given the compiler.
        load: makes something of the library's path; raises OSError or AttributeError when the
            library cannot be loaded or lacks a symbol.
        places: more flags, for where on this machine things are: what is built is the same.

    Raises:
        BuildError: it has to be built, and there is no compiler, or the compiler failed, or the
            new library cannot be loaded.
        CacheError: the cache folder cannot be used.
    """
    compiler = find_compiler()
    words = flags(compiler)
    store = Cache()
    stem = f"{name[:80]}-{digest(FORMAT_VERSION, text, host_cpu(), *compiler.identity, *words)}"
    loaded = _try_load(store, stem, load)
    if loaded is not None:
        return loaded
    if compiler.missing:
        raise BuildError(
            f"{compiler.missing}. {stem} is not in the cache folder {store.folder}, which was "
            f"filled by {compiler.version}"
        )
    with store.lock(stem):
        loaded = _try_load(store, stem, load)
        if loaded is not None:
            return loaded
        path = _build(store, stem, text, compiler, (*words, *places))
        try:
            return load(path)
        except (OSError, AttributeError) as error:
            raise BuildError(
                f"the library {path} was built but cannot be loaded: {error}; its source is "
                f"{path.with_suffix('.cpp')}. Another compiler can be named in CXX",
                path.with_suffix(".cpp"),
            ) from error


def _try_load(store: Cache, stem: str, load: Callable[[Path], T]) -> T | None:
    """What `load` makes of an entry, or None when there is none that can be used."""
    if store.read(f"{stem}.so") is None:
        return None
    path = store.path(f"{stem}.so")
    try:
        return load(path)
    except (OSError, AttributeError) as error:
        logger.info("building %s again, it cannot be loaded: %s", path, error)
        return None


def _build(store: Cache, stem: str, text: str, compiler: Compiler, flags: tuple[str, ...]) -> Path:
    source = store.write_plain(f"{stem}.cpp", text.encode())
    logger.debug("generated %s\n%s", source, text)
    started = time.perf_counter()
    with store.scratch() as folder:
        output = folder / "library.so"
        compiler.run(flags, source, output, source)
        path = store.write(f"{stem}.so", output.read_bytes())
    logger.info("built %s in %.1f s", path, time.perf_counter() - started)
    _new.add(path)
    return path


def is_new(path: Path) -> bool:
    """Whether this process has built a library, rather than found it."""
    return path in _new


def open_library(path: Path) -> ctypes.CDLL:
    """The library; torch is imported first, so that its OpenMP runtime is the only one."""
    import torch  # noqa: F401

    return ctypes.CDLL(str(path))
