"""Finding workloads and peers: modules with `COMPONENTS`."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from types import ModuleType
from typing import TypeVar

from sparsecompile.bench.peers import contestants, workloads
from sparsecompile.bench.peers.contract import Peer, UnknownPeerError, Workload
from sparsecompile.commands.model_factory import import_named

ENTRY_POINT_GROUP = "sparsecompile.bench"
T = TypeVar("T", Workload, Peer)


def find(kind: type[T], add: Sequence[str] = ()) -> dict[str, T]:
    """Workloads or peers by name.

    Args:
        kind: `Workload` or `Peer`.
        add: modules, or paths of .py files; what they have goes before what has the same name.
    """
    modules = [*_below(workloads), *_below(contestants)]
    modules += [point.load() for point in metadata.entry_points(group=ENTRY_POINT_GROUP)]
    modules += map(import_named, add)
    found = (part for module in modules for part in getattr(module, "COMPONENTS", ()))
    return {part.name: part for part in found if isinstance(part, kind)}


def named(found: dict[str, T], name: str, what: str) -> T:
    """The one of that name.

    Raises:
        UnknownPeerError: there is none; the message names the closest.
    """
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(found)}"
    raise UnknownPeerError(f"no {what} is called {name!r}; {hint}")


def _below(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        yield import_module(info.name)
