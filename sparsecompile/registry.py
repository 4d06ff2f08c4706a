"""Registry of structures, codecs, passes, templates and fragments; built-ins are plug-ins too."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module, metadata
from types import ModuleType
from typing import TypeVar

from sparsecompile.component import Component, kind_of
from sparsecompile.errors import RegistrationError
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure

ENTRY_POINT_GROUP = "sparsecompile.plugins"
Part = TypeVar("Part", Structure, Codec, Decomposition)
C = TypeVar("C", bound=Component)


class Registry:
    """What a Compiler can find, do and generate. Order of registration is kept."""

    def __init__(self, *components: Component) -> None:
        self._components: dict[tuple[type, str], Component] = {}
        self.revision = 0
        """Rises with every registration."""
        self._identity = (-1, "")
        self.register(*components)

    def register(self, *components: Component) -> None:
        """Add components; all of them, or none when one cannot be added.

        Raises:
            RegistrationError: not an instance of a kind, or its name is taken.
        """
        new: dict[tuple[type, str], Component] = {}
        for component in components:
            if not isinstance(component, Component):
                raise RegistrationError(
                    repr(component),
                    f"{component!r} is no component, such as a Structure or a Pass; register "
                    "instances, not classes",
                )
            key = (kind_of(component), component.name)
            taken = self._components.get(key) or new.get(key)
            if taken is not None:
                raise RegistrationError(
                    component.name,
                    f"{key[0].__name__} {component.name!r} of {type(component).__module__} is "
                    f"already registered by {type(taken).__module__}; give it another name",
                )
            new[key] = component
        self._components.update(new)
        self.revision += 1

    @property
    def identity(self) -> str:
        """Stands for what is registered: equal in every process that has the same plug-ins."""
        if self._identity[0] != self.revision:
            names = (
                f"{kind.__name__} {name} {type(c).__module__}.{type(c).__qualname__}"
                for (kind, name), c in self._components.items()
            )
            self._identity = (self.revision, "\n".join(sorted(names)))
        return self._identity[1]

    def all(self, kind: type[C]) -> tuple[C, ...]:
        """Every component of a kind, such as `registry.all(Structure)`."""
        return tuple(c for c in self._components.values() if isinstance(c, kind))

    def get(self, kind: type[C], name: str) -> C:
        """The component of that name.

        Raises:
            RegistrationError: there is none; the message names the closest.
        """
        found = self._components.get((kind, name))
        if isinstance(found, kind):
            return found
        names = [c.name for c in self.all(kind)]
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
        raise RegistrationError(name, f"no {kind.__name__.lower()} is called {name!r}; {hint}")

    def structure(self, name: str) -> Structure:
        """The structure of that name, registered or made by its family: `n_m[3:7]`.

        Raises:
            RegistrationError: no such family, or parameters it does not take.
        """
        return self._parsed(Structure, name)

    def codec(self, name: str) -> Codec:
        """The codec of that name, registered or made by its family: `int8[group=16]`.

        Raises:
            RegistrationError: no such family, or parameters it does not take.
        """
        return self._parsed(Codec, name)

    def decomposition(self, name: str) -> Decomposition:
        """The decomposition of that name, registered or made by its family.

        Raises:
            RegistrationError: there is none.
        """
        return self._parsed(Decomposition, name)

    def _parsed(self, kind: type[Part], name: str) -> Part:
        family, _, parameters = name.partition("[")
        for part in self.all(kind):
            if part.name == name:
                return part
        for part in self.all(kind):
            if part.family == family and name.endswith("]"):
                try:
                    return part.parse(parameters.removesuffix("]"))
                except ValueError as error:
                    text = f"no {kind.__name__.lower()} {name!r}: {error}"
                    raise RegistrationError(name, text) from error
        return self.get(kind, name)

    def format(self, name: str) -> Format:
        """The format of that name, such as `n_m[2:4]/float`; a bare structure means `float`.

        Raises:
            RegistrationError: unknown structure or codec.
        """
        structure, _, codec = name.partition("/")
        return Format(self.structure(structure), self.codec(codec or "float"))

    def copy(self) -> Registry:
        """A registry with the same components, to add to without touching this one."""
        return Registry(*self._components.values())

    def without(self, kind: type[Component]) -> Registry:
        """A registry with all other components."""
        return Registry(*(c for c in self._components.values() if not isinstance(c, kind)))

    def __deepcopy__(self, memo: object) -> Registry:
        """Components keep nothing of what they are used for: copies share them."""
        return self.copy()


@lru_cache(maxsize=1)
def default_registry() -> Registry:
    """The registry of `backend="sparse"`: every installed plug-in, the built-ins among them.

    Raises:
        RegistrationError: two plug-ins claim a name.
    """
    registry = Registry()
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda p: (not p.value.startswith("sparsecompile."), p.name)):
        for module in _modules(point.load()):
            registry.register(*getattr(module, "COMPONENTS", ()))
    return registry


def _modules(module: ModuleType) -> Iterator[ModuleType]:
    """A module, and below a package every module in it, in alphabetical order."""
    yield module
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), module.__name__ + "."):
        yield import_module(info.name)
