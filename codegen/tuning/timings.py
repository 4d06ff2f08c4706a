"""Timings of a problem's candidates: from the record, and where it lacks some, measured."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.tuning.choose import DENSE
from sparsecompile.codegen.tuning.contest import Ahead, Build, Contest
from sparsecompile.codegen.tuning.measure import Timing, measure
from sparsecompile.codegen.tuning.measurements import TuningRecord, tuning_key
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.variant import Function
from sparsecompile.kernels.spec import digest

logger = logging.getLogger("sparsecompile")
_measuring = threading.Lock()
_measured: set[str] = set()
"""Keys of what this process has measured."""
ATTEMPTS = 3
"""Processes that measure something, as long as others disturb them."""


class Timings:
    """How long the candidates of one problem take.

    Args:
        candidates: of the problem.
        build: makes a kernel of functions.
        ahead: see `Ahead`.

    Attributes:
        dropped: candidates that were not measured after all, with the reason.
        measured_now: how many timings are not from the record.
    """

    def __init__(self, candidates: Candidates, build: Build, ahead: Ahead) -> None:
        self._candidates, self._build, self._ahead = candidates, build, ahead
        self.dropped: dict[str, str] = {}
        self.measured_now = 0

    def known(self, rows: int) -> dict[str, Timing]:
        """What the record says of one m.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        return TuningRecord().timings(self._key(rows))

    def at(self, rows: int, functions: Sequence[Function]) -> dict[str, Timing]:
        """The same, and timings of those functions that are worth one and have none yet.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        known = self.known(rows)
        serving = [f for f in functions if f.serves(rows)]
        if self._candidates.problem.tune == "cached" or not self._has_to(rows, known, serving):
            return known
        with _measuring, Cache().lock("tuning"):
            known = self.known(rows)
            if self._has_to(rows, known, serving):
                # All of them anew: timings of different moments cannot be compared.
                racing = [f for f in serving if f.name in known or self._candidates.wants(f)]
                known = self._measure(rows, racing, known)
        return known

    def _has_to(self, rows: int, known: Mapping[str, Timing], serving: Sequence[Function]) -> bool:
        """Whether something is to be measured."""
        return self._lacks(rows, known, serving) or self._is_in_doubt(rows, known)

    def _is_in_doubt(self, rows: int, known: Mapping[str, Timing]) -> bool:
        """Whether another process was disturbed when it measured, and few have tried."""
        key, record = self._key(rows), TuningRecord()
        return (
            any(timing.disturbed for timing in known.values())
            and key not in _measured
            and record.times(key) < ATTEMPTS
            and record.is_writable
        )

    def _lacks(self, rows: int, known: Mapping[str, Timing], serving: Sequence[Function]) -> bool:
        """Whether something has to be measured that is not known to be left out."""
        wants = self._candidates.wants
        absent = [f.name for f in serving if f.name not in known and wants(f)]
        if absent:
            self.dropped |= TuningRecord().dropped(self._key(rows))
        return any(name not in self.dropped for name in absent)

    def _measure(
        self, rows: int, racing: Sequence[Function], known: Mapping[str, Timing]
    ) -> dict[str, Timing]:
        """What is known, and timings of what is fit; what is not is recorded with the reason."""
        of = self._candidates
        racing = [f for f in racing if f.name not in self.dropped]
        new = [f for f in racing if f.name not in known and f.variant not in of.usual]
        dropped = of.workbench.faults(of.problem, new)
        ranks = {variant: rank for rank, variant in enumerate(of.promising)}
        fit = [f for f in racing if f.name not in dropped]
        fit.sort(key=lambda f: ranks.get(f.variant, len(ranks)))
        unbuilt = self._contest.build(fit)
        self.dropped |= unbuilt
        fit = [f for f in fit if f.name not in unbuilt]
        for name, why in (dropped | unbuilt).items():
            logger.info("%s: %s is not measured: %s", of.problem, name, why)
        known = {name: timing for name, timing in known.items() if name not in unbuilt}
        is_known = not dropped and all(f.name in known for f in fit)
        if known and is_known and not self._is_in_doubt(rows, known):
            return known
        contestants, failed = self._contest.contestants(rows, fit)
        for name, why in failed.items():
            logger.info("%s: %s is not measured: %s", of.problem, name, why)
        dropped |= failed
        timed = measure(contestants, DENSE)
        _measured.add(self._key(rows))
        # Without what cannot be built: what mends a compiler need not change its version.
        TuningRecord().add(self._key(rows), self._facts(rows), timed, dropped)
        self.dropped |= dropped
        self.measured_now += len(timed)
        return known | timed

    @cached_property
    def _contest(self) -> Contest:
        of = self._candidates
        return Contest(of.operator, of.problem, of.contents, of.workbench, self._build, self._ahead)

    def _key(self, rows: int) -> str:
        return tuning_key(self._facts(rows))

    def _facts(self, rows: int) -> dict[str, object]:
        """What timings at one m depend on, besides our own files and the CPU."""
        problem = self._candidates.problem
        return {
            **problem.facts(),
            "m": rows,
            "torch": torch.__version__,
            "candidates": self._sources,
            **self._candidates.workbench.facts(),
        }

    @cached_property
    def _sources(self) -> str:
        """Stands for what is generated: that of plug-ins changes with none of our own files."""
        return digest(*(variant.digest for variant in self._candidates.variants))
