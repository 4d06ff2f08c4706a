"""Tuner: which functions serve a packed linear, by measurement or by the cost model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.tuning.choose import DENSE, choose_function, choose_layout, last_row
from sparsecompile.codegen.tuning.contest import Ahead, Build, Contest
from sparsecompile.codegen.tuning.function import BuiltFunction, functions_of, variants_of
from sparsecompile.codegen.tuning.key import tuning_key
from sparsecompile.codegen.tuning.measure import measure
from sparsecompile.codegen.tuning.promising import promising
from sparsecompile.codegen.tuning.ranges import choose_for_rows, join
from sparsecompile.codegen.tuning.record import Timing, TuningRecord
from sparsecompile.codegen.tuning.trials import trials_at
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.codegen.tuning.workbench import Workbench
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.problem import Contents, DenseUse, Problem, Trial
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.template import Range

logger = logging.getLogger("sparsecompile")
_measuring = threading.Lock()


@dataclass(frozen=True)
class Decision:
    """What serves a problem.

    Attributes:
        variants: the one that makes the layout first; empty where dense serves everything.
        ranges: by rising m.
        trials: what it rests on.
        reason: in words.
        dropped: candidates that were not measured after all, each with the reason.
        is_choice: false where dense serves because no candidate could be measured.
        is_open: whether another layout may be the best one where other m come too.
    """

    variants: tuple[Variant, ...]
    ranges: tuple[Range, ...]
    trials: tuple[Trial, ...]
    reason: str
    dropped: tuple[tuple[str, str], ...] = ()
    is_choice: bool = True
    is_open: bool = False


class Tuner:
    """Decides one problem.

    Args:
        problem: with a spec that has no epilogue.
        variants: the schedules that are measured by default, best guess first.
        searched: those that `full` measures besides.
        sample: packs a weight of the problem.
        workbench: where it runs.
        build: makes a kernel of functions.
        ahead: see `Ahead`.
    """

    def __init__(
        self,
        problem: Problem,
        variants: Sequence[Variant],
        searched: Sequence[Variant],
        sample: Callable[[], Packed],
        workbench: Workbench,
        build: Build,
        ahead: Ahead,
    ) -> None:
        self.problem, self._workbench = problem, workbench
        self._sample, self._build, self._ahead = sample, build, ahead
        self._all = tuple(dict.fromkeys((*variants, *searched)))
        fit = [v for v in self._all if problem.layout in ("", v.layout)]
        self._variants = [v for v in variants if v in fit] or fit
        self._functions = functions_of(fit)
        self._dropped: dict[str, str] = {}
        self.measured_now = 0

    def decide(self) -> Decision:
        """Measure what has to be measured, and choose.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        if self._workbench.device is None:
            return self._guess("not measured")
        if self.problem.tune == "off":
            return self._guess("not measured (tune is off)")
        try:
            return self._decide()
        except self._workbench.failures as error:
            # The dense linear itself, or the device: no candidate is to blame.
            return self._guess(f"could not be measured ({' '.join(str(error).split())})")

    def _decide(self) -> Decision:
        """By timings, as far as there are some."""
        problem, functions = self.problem, self._functions
        timings = {rows: self._timings(rows, functions) for rows in problem.layout_rows}
        layout = choose_layout(functions, timings, dense=problem.dense is DenseUse.ANYWHERE)
        if layout is None:
            return self._without_timings()
        is_open = any(f.layout != layout for f in functions if self._wants(f))
        functions = [f for f in functions if f.layout == layout]
        for rows in problem.rows:
            if rows not in timings:
                timings[rows] = self._timings(rows, functions)
        choices = choose_for_rows(problem, functions, timings)
        if len(choices) < len(problem.rows):
            return self._without_timings()
        refined = self._refined(functions, choices, timings)
        chosen = {**choices, **refined}
        describe = partial(trials_at, problem, self._functions, self.contents, self._workbench)
        trials = [
            t for rows in sorted(timings) for t in describe(rows, timings[rows], chosen.get(rows))
        ]
        source = "measured" if self.measured_now else "from the tuning record, nothing measured"
        ranges = join(functions, refined)
        variants = self._needed(functions, ranges)
        dropped = self._left_out
        return Decision(variants, ranges, tuple(trials), source, dropped, is_open=is_open)

    @cached_property
    def contents(self) -> Contents:
        """What is in the sample."""
        return Contents(self._sample())

    @cached_property
    def _contest(self) -> Contest:
        packed = self.contents.packed
        return Contest(self.problem, packed, self._workbench, self._build, self._ahead)

    @cached_property
    def _promising(self) -> list[Variant]:
        limits = self._workbench.limits(measure=self.problem.tune in ("fast", "full"))
        return promising(self.problem, self._variants, self.contents, limits)

    def _guess(self, reason: str) -> Decision:
        """The cost model's word."""
        guess = self._workbench.guess(self.problem, self._promising, self.contents)
        variants = self._needed(functions_of(self._promising), guess.ranges)
        basis = "; ".join(filter(None, (reason, guess.basis)))
        if not variants:
            basis = f"the dense linear is no slower ({basis})"
        return Decision(variants, guess.ranges, (), basis, self._left_out)

    def _without_timings(self) -> Decision:
        """Where the record lacks what is needed, or no candidate could be measured."""
        tune = self.problem.tune
        if tune == "cached" or not self._dropped:
            return self._guess(f"not in the tuning record (tune is {tune})")
        name, why = next(iter(self._dropped.items()))
        reason = f"could not be measured ({name}: {why})"
        if self.problem.dense is DenseUse.NEVER or self.problem.layout:
            return self._guess(reason)
        return Decision((), (), (), reason, self._left_out, is_choice=False)

    def _needed(
        self, functions: Sequence[BuiltFunction], ranges: Sequence[Range]
    ) -> tuple[Variant, ...]:
        """The variants that ranges need; none where dense serves and no graph reads the layout."""
        if not self.problem.layout and all(part.dense for part in ranges):
            return ()
        return variants_of(functions, ranges)

    @property
    def _left_out(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self._dropped.items()))

    def _wants(self, function: BuiltFunction) -> bool:
        """Whether it has to be measured: everything in `full`, else what may win."""
        return self.problem.tune == "full" or function.variant in self._promising

    def _timings(self, rows: int, functions: Sequence[BuiltFunction]) -> dict[str, Timing]:
        """Timings at one m, from the record and, where it lacks some, measured."""
        record, key = TuningRecord(), self._key(rows)
        known = record.timings(key)
        serving = [f for f in functions if f.serves(rows)]
        if self.problem.tune == "cached" or not self._lacks(record, key, known, serving):
            return known
        with _measuring, Cache().lock("tuning"):
            known = record.timings(key)
            if self._lacks(record, key, known, serving):
                # All of them anew: timings of different moments cannot be compared.
                racing = [f for f in serving if f.name in known or self._wants(f)]
                known = self._measure(rows, racing, known)
        return known

    def _lacks(
        self,
        record: TuningRecord,
        key: str,
        known: Mapping[str, Timing],
        serving: Sequence[BuiltFunction],
    ) -> bool:
        """Whether something has to be measured that is not known to be left out."""
        absent = [f.name for f in serving if f.name not in known and self._wants(f)]
        if absent:
            self._dropped |= record.dropped(key)
        return any(name not in self._dropped for name in absent)

    def _measure(
        self, rows: int, racing: Sequence[BuiltFunction], known: Mapping[str, Timing]
    ) -> dict[str, Timing]:
        """What is known, and timings of what is fit; what is not is recorded with the reason."""
        racing = [f for f in racing if f.name not in self._dropped]
        new = [f for f in racing if f.name not in known and f.variant not in self._variants]
        dropped = self._workbench.faults(self.problem, new)
        ranks = {variant: rank for rank, variant in enumerate(self._promising)}
        fit = [f for f in racing if f.name not in dropped]
        fit.sort(key=lambda f: ranks.get(f.variant, len(ranks)))
        unbuilt = self._contest.build(fit)
        self._dropped |= unbuilt
        fit = [f for f in fit if f.name not in unbuilt]
        for name, why in (dropped | unbuilt).items():
            logger.info("%s: %s is not measured: %s", self.problem, name, why)
        known = {name: timing for name, timing in known.items() if name not in unbuilt}
        if known and not dropped and all(f.name in known for f in fit):
            return known
        contestants, failed = self._contest.contestants(rows, fit)
        for name, why in failed.items():
            logger.info("%s: %s is not measured: %s", self.problem, name, why)
        dropped |= failed
        timed = measure(contestants, DENSE)
        # Without what cannot be built: what mends a compiler need not change its version.
        TuningRecord().add(self._key(rows), self._facts(rows), timed, dropped)
        self._dropped |= dropped
        self.measured_now += len(timed)
        return known | timed

    def _refined(
        self,
        functions: Sequence[BuiltFunction],
        choices: Mapping[int, str],
        timings: dict[int, dict[str, Timing]],
    ) -> dict[int, str]:
        """Choices, each at the last m at which it still beats the next one.

        Only `full` measures for it; the others take what was recorded.
        """
        by_name = {f.name: f for f in functions}
        refined: dict[int, str] = {}
        for low, high in pairwise(choices):
            pair = choices[low], choices[high]
            rivals = [by_name[name] for name in pair if name != DENSE]
            wins = partial(self._wins, choices[low], rivals, DENSE in pair, timings)
            refined[low if pair[0] == pair[1] else last_row(low, high, wins)] = choices[low]
        last = max(choices)
        return {**refined, last: choices[last]}

    def _wins(
        self,
        name: str,
        rivals: Sequence[BuiltFunction],
        dense: bool,
        timings: dict[int, dict[str, Timing]],
        rows: int,
    ) -> bool:
        """Whether a choice beats its rival at one m; what was measured for it goes to timings."""
        if not all(f.serves(rows) for f in rivals if f.name == name):
            return False
        full = self.problem.tune == "full"
        timed = self._timings(rows, rivals) if full else TuningRecord().timings(self._key(rows))
        if any(f.name not in timed for f in rivals if f.serves(rows)):
            return False
        timings[rows] = timed
        return choose_function(rivals, timed, dense=dense) == name

    def _facts(self, rows: int) -> dict[str, object]:
        problem = self.problem
        return {
            "spec": str(problem.spec),
            "n": problem.shape[0],
            "k": problem.shape[1],
            "density": problem.density,
            "m": rows,
            "torch": torch.__version__,
            "candidates": self._sources,
            **({"dense": problem.dense_copy.name} if problem.dense_copy is not None else {}),
            **self._workbench.facts(),
        }

    @cached_property
    def _sources(self) -> str:
        """Stands for what is generated: that of plug-ins changes with none of our own files."""
        return digest(*(repr((v.name, v.source)) for v in self._all))

    def _key(self, rows: int) -> str:
        return tuning_key(self._facts(rows))
