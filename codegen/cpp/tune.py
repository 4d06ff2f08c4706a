"""Tuner: which functions serve a packed linear on this CPU, by measurement or by the cost model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise

import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.build import host_cpu
from sparsecompile.codegen.cpp.contest import COLD_ROWS, Build, Contest
from sparsecompile.codegen.cpp.function import CppFunction, functions_of, variants_of
from sparsecompile.codegen.cpp.machine import Machine, known_machine, measure_machine
from sparsecompile.codegen.cpp.promising import TYPICAL, promising
from sparsecompile.codegen.cpp.variant import Variant
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.tuning.choose import (
    DENSE,
    LAYOUT_ROWS,
    choose_function,
    choose_layout,
    last_row,
)
from sparsecompile.codegen.tuning.measure import measure
from sparsecompile.codegen.tuning.record import Timing, TuningRecord
from sparsecompile.packed import Packed
from sparsecompile.problem import Contents, DenseUse, Problem, Trial
from sparsecompile.spec import Target, digest
from sparsecompile.template import Range

_measuring = threading.Lock()


@dataclass(frozen=True)
class Decision:
    """What serves a problem.

    Attributes:
        variants: the one that makes the layout first; empty where dense serves everything.
        ranges: by rising m.
        trials: what it rests on.
        reason: in words.
    """

    variants: tuple[Variant, ...]
    ranges: tuple[Range, ...]
    trials: tuple[Trial, ...]
    reason: str


class Tuner:
    """Decides one problem.

    Args:
        problem: with a spec that has no epilogue.
        variants: the schedules that are measured by default, best guess first.
        searched: those that `full` measures besides.
        sample: packs a weight of the problem.
        target: where it runs.
        build: makes a kernel of functions.
    """

    def __init__(
        self,
        problem: Problem,
        variants: Sequence[Variant],
        searched: Sequence[Variant],
        sample: Callable[[], Packed],
        target: Target,
        build: Build,
    ) -> None:
        self.problem, self.target = problem, target
        self._sample, self._build = sample, build
        self._variants = variants
        self._functions = functions_of(dict.fromkeys((*variants, *searched)))
        self._threads = torch.get_num_threads()
        self.measured_now = 0

    def decide(self) -> Decision:
        """Measure what has to be measured, and choose.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        problem, functions = self.problem, self._functions
        if problem.tune == "off":
            return self._guess("not measured (tune is off)")
        timings = {rows: self._timings(rows, functions) for rows in LAYOUT_ROWS}
        layout = choose_layout(functions, timings, dense=problem.dense is DenseUse.ANYWHERE)
        if layout is None:
            return self._guess("not in the tuning record (tune is cached)")
        functions = [f for f in functions if f.layout == layout]
        for rows in problem.rows:
            if rows not in timings:
                timings[rows] = self._timings(rows, functions)
        choices = self._choices(functions, timings, dense=problem.dense is not DenseUse.NEVER)
        if problem.dense is DenseUse.ALONE and set(choices.values()) != {DENSE}:
            choices = self._choices(functions, timings, dense=False)
        if len(choices) < len(problem.rows):
            return self._guess("not in the tuning record (tune is cached)")
        refined = self._refined(functions, choices, timings)
        chosen = {**choices, **refined}
        trials = [t for rows in sorted(timings) for t in self._trials(rows, timings, chosen)]
        source = "measured" if self.measured_now else "from the tuning record, nothing measured"
        ranges = self._ranges(functions, refined)
        return Decision(variants_of(functions, ranges), ranges, tuple(trials), source)

    @cached_property
    def contents(self) -> Contents:
        """What is in the sample."""
        return Contents(self._sample())

    @cached_property
    def _contest(self) -> Contest:
        return Contest(self.problem.spec, self.contents.packed, self._build)

    @cached_property
    def _promising(self) -> list[Variant]:
        return promising(self.problem.spec, self._variants, self.contents, self._machine)

    @property
    def _machine(self) -> Machine:
        if self.problem.tune in ("fast", "full"):
            return measure_machine(self._threads)
        return known_machine(self._threads) or TYPICAL

    def _guess(self, reason: str) -> Decision:
        """The cost model's word: the most promising variant for every m."""
        variant = self._promising[0]
        ranges = tuple(f.range(f.largest_m) for f in functions_of((variant,)))
        return Decision((variant,), ranges, (), reason)

    def _wants(self, function: CppFunction) -> bool:
        """Whether it has to be measured: everything in `full`, else what may win."""
        return self.problem.tune == "full" or function.variant in self._promising

    def _timings(self, rows: int, functions: Sequence[CppFunction]) -> dict[str, Timing]:
        """Timings at one m, from the record and, where it lacks some, measured."""
        record, key = TuningRecord(), self._key(rows)
        known = record.timings(key)
        if self.problem.tune == "cached":
            return known
        serving = [f for f in functions if f.serves(rows)]
        if all(f.name in known for f in serving if self._wants(f)):
            return known
        with _measuring, Cache().lock("tuning"):
            known = record.timings(key)
            if any(f.name not in known for f in serving if self._wants(f)):
                # All of them anew: timings of different moments cannot be compared.
                racing = [f for f in serving if f.name in known or self._wants(f)]
                timed = measure(self._contest.contestants(rows, racing), DENSE)
                record.add(key, self._facts(rows), timed)
                self.measured_now += len(timed)
                known |= timed
        return known

    def _choices(
        self,
        functions: Sequence[CppFunction],
        timings: Mapping[int, Mapping[str, Timing]],
        *,
        dense: bool,
    ) -> dict[int, str]:
        """What is chosen for each m of the problem at which something was measured."""
        choices = {
            m: choose_function(functions, timings[m], dense=dense) for m in self.problem.rows
        }
        return {m: choice for m, choice in choices.items() if choice is not None}

    def _refined(
        self,
        functions: Sequence[CppFunction],
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
        rivals: Sequence[CppFunction],
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

    def _ranges(
        self, functions: Sequence[CppFunction], choices: Mapping[int, str]
    ) -> tuple[Range, ...]:
        """Choices as ranges of m, each up to its own m, the last without an end; equal joined."""
        by_name = {f.name: f for f in functions}
        unlimited = next(f for f in functions if f.largest_m is None)
        last = max(choices)
        ranges: list[Range] = []
        for m, name in choices.items():
            end = None if m == last else m
            # Where the dense weight is not at hand after all, a function has to stand in.
            part = by_name.get(name, unlimited).range(end, dense=name == DENSE)
            if ranges and replace(ranges[-1], largest_m=end) == part:
                ranges.pop()
            ranges.append(part)
        return tuple(ranges)

    def _trials(
        self,
        rows: int,
        timings: Mapping[int, Mapping[str, Timing]],
        choices: Mapping[int, str],
    ) -> list[Trial]:
        """What was measured at one m, the fastest first."""
        spec, (n, k) = self.problem.spec, self.problem.shape
        nbytes = {DENSE: (n * k + rows * (n + k)) * spec.dtype.itemsize}
        for variant in dict.fromkeys(f.variant for f in self._functions):
            cost = variant.template.cost(spec, variant.schedule, self.contents)
            own = (f for f in self._functions if f.variant == variant)
            nbytes |= {f.name: cost.moved(rows) for f in own}
        cold, chosen = rows <= COLD_ROWS, choices.get(rows)
        return [
            Trial(rows, name, t.seconds, t.noise, nbytes[name], chosen == name, cold)
            for name, t in sorted(timings[rows].items(), key=_by_seconds)
            if name in nbytes
        ]

    def _facts(self, rows: int) -> dict[str, object]:
        problem = self.problem
        return {
            "spec": str(problem.spec),
            "n": problem.shape[0],
            "k": problem.shape[1],
            "density": problem.density,
            "m": rows,
            "target": str(self.target),
            "threads": self._threads,
            "torch": torch.__version__,
        }

    def _key(self, rows: int) -> str:
        return tuning_key(self._facts(rows))


def _by_seconds(timed: tuple[str, Timing]) -> tuple[float, str]:
    name, timing = timed
    return timing.seconds, name


def tuning_key(facts: Mapping[str, object]) -> str:
    """What timings are recorded under: the facts, this CPU and the sources that kernels are of."""
    named = (f"{name}={value}" for name, value in sorted(facts.items()))
    return digest(*named, host_cpu(), sources_digest())
