"""Variant: a template with a schedule, rendered for a spec; or a library call with one."""

from __future__ import annotations

from dataclasses import dataclass

from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.template import Source


@dataclass(frozen=True)
class Variant:
    """A candidate that can be built.

    Attributes:
        template: what it comes from: a template, or a library call.
        schedule: its choices.
        source: the rendered text; None of a library call.
    """

    template: Packer
    schedule: Schedule
    source: Source | None

    @property
    def name(self) -> str:
        """Template and schedule."""
        return f"{self.template.name} {self.schedule}".strip()

    @property
    def layout(self) -> str:
        """Name of the layout it reads."""
        return self.template.layout(self.schedule)

    @property
    def source_name(self) -> str:
        """Name of its source; empty of a library call."""
        return self.source.name if self.source is not None else ""

    @property
    def kernels(self) -> tuple[tuple[str, int | None], ...]:
        """Its functions, as in `Source.kernels`; a library call is one for every m."""
        return self.source.kernels if self.source is not None else ((self.template.name, None),)
