"""Generated modules: files of the cache folder, imported from there."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

from sparsecompile.codegen.cache import Cache
from sparsecompile.errors import BuildError
from sparsecompile.kernels.template import Source

_lock = threading.Lock()


def write_module(source: Source) -> Path:
    """Write a module, unless it is there already and whole.

    Raises:
        CacheError: the cache folder cannot be used.
    """
    cache, name = Cache(), f"{source.name[:100]}_{source.digest}.py"
    content = source.text.encode()
    if cache.read(name) != content:
        cache.write(name, content)
    return cache.path(name)


def import_module(path: Path) -> ModuleType:
    """The module of a file that `write_module` wrote, imported once a process.

    Its name holds a digest of its text, so the same file of another cache folder is the same
    module.

    Raises:
        BuildError: there is no Triton, or it refuses the file.
    """
    name = f"sparsecompile_generated.{path.stem}"
    with _lock:
        found = sys.modules.get(name)
        if found is not None:
            return found
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise BuildError(f"{path} cannot be imported", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (ImportError, SyntaxError, OSError) as error:
            del sys.modules[name]
            raise BuildError(f"cannot import the generated {path}: {error}", path) from error
        return module
