"""Component: whatever a registry holds."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar


class Component(ABC):
    """Something that a plug-in adds.

    A class that derives from it directly is a *kind*, such as `Structure` or `Pass`: what a
    registry is asked for, and within which a name is unique. A component has a `name`.
    """

    name: ClassVar[Any]


def kind_of(component: Component) -> type[Component]:
    """The kind of a component."""
    return next(c for c in type(component).__mro__ if Component in c.__bases__)
