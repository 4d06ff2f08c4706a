"""Variant: a template with a schedule, rendered for a spec."""

from __future__ import annotations

from dataclasses import dataclass

from sparsecompile.spec import Schedule
from sparsecompile.template import Source, Template


@dataclass(frozen=True)
class Variant:
    """A candidate that can be built.

    Attributes:
        template: what it comes from.
        schedule: its choices.
        source: the rendered text.
    """

    template: Template
    schedule: Schedule
    source: Source

    @property
    def name(self) -> str:
        """Template and schedule."""
        return f"{self.template.name} {self.schedule}"

    @property
    def layout(self) -> str:
        """Name of the layout it reads."""
        return self.template.layout(self.schedule)
