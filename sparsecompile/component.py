"""Component: whatever a registry holds; Family, those that are made by name with parameters."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from typing_extensions import Self


class Component(ABC):
    """Something that a plug-in adds.

    A class that derives from it directly, or from `Family`, is a *kind*, such as `Structure` or
    `Pass`: what a registry is asked for, and within which a name is unique. A component has a
    `name`.
    """

    name: ClassVar[Any]


class Family(Component):
    """A component with parameters, such as `n_m[2:4]`: one is another where the names are equal."""

    family: ClassVar[str]
    """Name without parameters, such as `n_m`."""

    @property
    def name(self) -> str:
        """Name with parameters; unique in a registry."""
        return self.family

    @classmethod
    def parse(cls, parameters: str) -> Self:
        """Make an instance from the text between the brackets of a name.

        Raises:
            ValueError: the text does not fit this family.
        """
        if parameters:
            raise ValueError(f"{cls.family} takes no parameters")
        return cls()

    def __eq__(self, other: object) -> bool:
        """Same class and name."""
        return type(self) is type(other) and self.name == str(other)

    def __hash__(self) -> int:
        """By name."""
        return hash(self.name)

    def __str__(self) -> str:
        """The name."""
        return self.name


def kind_of(component: Component) -> type[Component]:
    """The kind of a component."""
    bases = {Component, Family}
    return next(c for c in type(component).__mro__ if c not in bases and bases & {*c.__bases__})
