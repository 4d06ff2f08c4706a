"""Where the time of one step goes, of those contestants that tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.process import ContestantError
from sparsecompile.bench.peers.series import Series


def show_parts(
    series: Series, workload: Workload, jobs: Sequence[Job], peers: Mapping[str, Peer]
) -> None:
    """Print where the time of one step goes, or why that is not known."""
    for job in jobs:
        parts: Mapping[str, float] | str | None
        parts = peers[job.peer].missing() or workload.missing(job.model)
        try:
            parts = parts or series.profile(job)
        except ContestantError as error:
            typer.echo(f"error: {error}", err=True)
            continue
        if isinstance(parts, str):
            typer.echo(f"{job.contestant}: {parts}", err=True)
            continue
        typer.echo(f"{job.workload} {workload.label(job.size)}, {job.contestant}, ms a step:")
        for name, ms in parts.items():
            typer.echo(f"  {name:<16}{ms:9.3f}")
