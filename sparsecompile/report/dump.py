"""Dump: every graph after every pass, the sources and the report, as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from torch.fx import GraphModule

from sparsecompile.errors import CacheError
from sparsecompile.report.model import Report


@dataclass
class Dump:
    """Writes below `folder`: `graph_000/00_captured/graph.py`, `graph_000/01_canonicalize/...`,
    `sources/*.cpp` or `*.py`, `report.txt` and `report.json`. Without a folder it writes nothing.
    """  # noqa: D205 - the paths are the summary

    folder: Path | None
    _steps: count[int] = field(default_factory=count)

    @classmethod
    def of(cls, folder: Path | None) -> Dump:
        """A dump of the next graph: the first `graph_000`, `graph_001`, ... that is not there.

        Raises:
            CacheError: the folder cannot be written.
        """
        if folder is None:
            return cls(None)
        for number in count():
            own = folder / f"graph_{number:03}"
            try:
                own.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise CacheError(folder, f"cannot dump to {folder}: {error}") from error
            return cls(own)
        raise AssertionError

    def graph(self, name: str, module: GraphModule) -> None:
        """Write the readable code of a graph, after the pass of that name."""
        if self.folder is None:
            return
        step = self.folder / f"{next(self._steps):02}_{name}"
        step.mkdir()
        (step / "graph.py").write_text(readable(module))

    def finish(self, report: Report, sources: Mapping[str, str]) -> None:
        """Write the sources and the report."""
        if self.folder is None:
            return
        root = self.folder.parent
        (root / "sources").mkdir(exist_ok=True)
        for name, text in sources.items():
            (root / "sources" / name).write_text(text)
        (root / "report.txt").write_text(str(report))
        (root / "report.json").write_text(report.to_json())


def readable(module: GraphModule) -> str:
    """The code of a graph with shapes and dtypes."""
    text: str = module.print_readable(print_output=False)
    return text
