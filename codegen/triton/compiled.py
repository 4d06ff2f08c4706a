"""What Triton compiles of ours: kept in the cache folder, beside the modules that it is made of.

Triton asks one manager for all of a process where results are. Ours stands in front of the one that
was there, and takes over only where `kept_here` says that the function is ours: other people's
kernels stay where they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any

from sparsecompile.codegen.cache import Cache
from sparsecompile.kernels.spec import digest

_is_ours: ContextVar[bool] = ContextVar("_is_ours", default=False)


@contextmanager
def kept_here() -> Iterator[None]:
    """Let Triton keep what this thread compiles in the cache folder."""
    from triton import knobs

    before = knobs.cache.manager_class
    if not isinstance(before, _Managers):
        knobs.cache.manager_class = _Managers(before)
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


class Results:
    """What was compiled of one function, as `triton.runtime.cache.CacheManager` has it.

    Args:
        key: Triton's, of everything that a result depends on.
    """

    def __init__(self, key: str) -> None:
        self._key, self._cache = key, Cache()

    def get_file(self, filename: str) -> str | None:
        """Path of a result if it is there and whole."""
        name = self._name(filename)
        return str(self._cache.path(name)) if self._cache.read(name) is not None else None

    def put(self, data: Any, filename: str, binary: bool = True) -> str:
        """Keep a result; its path."""
        content = data if isinstance(data, bytes) else str(data).encode()
        return str(self._cache.write(self._name(filename), content))

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Paths of all results of a compilation by their names, if all are there and whole."""
        names = self._cache.read(self._name(f"group.{filename}"))
        found = {name: self.get_file(name) for name in json.loads(names or b"[]")}
        paths = {name: path for name, path in found.items() if path is not None}
        return paths if paths and len(paths) == len(found) else None

    def put_group(self, filename: str, group: Mapping[str, str]) -> str:
        """Keep which results belong together."""
        return self.put(json.dumps(list(group)), f"group.{filename}")

    def _name(self, filename: str) -> str:
        path = PurePath(filename)
        return f"{path.stem}-{digest(self._key, filename)}{path.suffix}"


class _Managers:
    """Stands for a class of managers: ours, or the one that was there before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, key: str, **purpose: bool) -> Any:
        if _is_ours.get() and not any(purpose.values()):
            return Results(key)
        from triton.runtime.cache import FileCacheManager

        return (self._before or FileCacheManager)(key, **purpose)
