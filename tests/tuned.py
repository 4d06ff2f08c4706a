"""A tuner whose measurements are made up, and a record of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp import workbench
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.codegen.tuning import timings
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.codegen.tuning.variant import Function, Variant
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import Schedule

MACHINE = Machine("a CPU", 1, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "amx", "vnni")


def no_kernel(*_: object) -> Kernel:
    """For a contest without candidates."""
    pytest.fail("there is no candidate to build")


def no_builds(variant: Variant) -> Sequence[Callable[[], Kernel]]:
    """Nothing has an epilogue."""
    return ()


def library_call(name: str, layout: str = "") -> Function:
    """A candidate of which timings are known by its name."""
    packer: Any = SimpleNamespace(name=name, layout=lambda schedule: layout)
    return Function(Variant(packer, Schedule(), None), name, None)


class Tuned:
    """Replaces measuring: what a candidate takes at an m is said by `seconds`.

    Attributes:
        seconds: time of a candidate, by its name and m; packed functions take half of dense.
        measured: `(m, names)` of everything that was measured.
        broken: candidates that do not run, with the reason.
        disturbed: whether other processes take processors away.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.seconds: Callable[[str, int], float] = lambda name, rows: 2.0 - (name != "dense")
        self.measured: list[tuple[int, list[str]]] = []
        self.broken: dict[str, str] = {}
        self.disturbed = False
        self.folder = folder

        def contestants(
            contest: Contest, rows: int, functions: Sequence[Function]
        ) -> tuple[dict[str, int], dict[str, str]]:
            racing = [f.name for f in functions if f.name not in self.broken]
            failed = {f.name: self.broken[f.name] for f in functions if f.name in self.broken}
            return dict.fromkeys(("dense", *racing), rows), failed

        patch.setattr(Contest, "__init__", lambda *_: None)
        patch.setattr(Contest, "contestants", contestants)
        patch.setattr(Contest, "build", lambda contest, functions: {})
        patch.setattr(timings, "measure", self._measure)
        patch.setattr(timings, "TuningRecord", self.record)
        self.another_process()
        patch.setattr(workbench, "measure_machine", lambda threads: MACHINE)
        patch.setattr(workbench, "known_machine", lambda threads: None)

    def another_process(self) -> None:
        """Has measured nothing yet."""
        timings._measured.clear()

    def record(self) -> TuningRecord:
        return TuningRecord(Cache(self.folder))

    def _measure(self, contestants: Mapping[str, int], baseline: str) -> dict[str, Timing]:
        assert baseline == "dense"
        (rows,) = set(contestants.values())
        self.measured.append((rows, list(contestants)))
        times = {name: self.seconds(name, rows) for name in contestants}
        return {name: Timing(each, 0.001, self.disturbed) for name, each in times.items()}

    @property
    def rows(self) -> list[int]:
        """The m at which something was measured."""
        return [rows for rows, _ in self.measured]

    def dense_wins(self, where: Callable[[int], bool] = lambda rows: True) -> None:
        """Make the dense linear faster where m is such."""
        self.seconds = lambda name, rows: 1.0 if (name == "dense") == where(rows) else 2.0
