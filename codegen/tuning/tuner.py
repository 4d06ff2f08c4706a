"""Tuner: which functions serve a packed linear, by measurement or by the cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from sparsecompile.codegen.tuning.choose import (
    DENSE,
    choose_for_rows,
    choose_function,
    choose_layout,
    join,
    last_row,
)
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.timings import ATTEMPTS, Timings
from sparsecompile.codegen.tuning.variant import Function, Variant, functions_of, variants_of
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.problem import DenseUse
from sparsecompile.kernels.trial import Trial


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
        candidates: what may serve it.
        timings: how long they take.
    """

    def __init__(self, candidates: Candidates, timings: Timings) -> None:
        self._candidates, self._timings = candidates, timings
        self.problem, self._workbench = candidates.problem, candidates.workbench

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
        problem, functions = self.problem, self._candidates.functions
        timings = {rows: self._timings.at(rows, functions) for rows in problem.layout_rows}
        layout = choose_layout(functions, timings, dense=problem.dense is DenseUse.ANYWHERE)
        if layout is None:
            return self._without_timings()
        is_open = any(f.layout != layout for f in functions if self._candidates.wants(f))
        functions = [f for f in functions if f.layout == layout]
        for rows in problem.rows:
            if rows not in timings:
                timings[rows] = self._timings.at(rows, functions)
        choices = choose_for_rows(problem, functions, timings)
        if len(choices) < len(problem.rows):
            return self._without_timings()
        refined = self._refined(functions, choices, timings)
        chosen = {**choices, **refined}
        trials = tuple(
            trial
            for rows in sorted(timings)
            for trial in self._candidates.trials(rows, timings[rows], chosen.get(rows))
        )
        measured = self._timings.measured_now
        source = "measured" if measured else "from the tuning record, nothing measured"
        if any(timing.disturbed for timed in timings.values() for timing in timed.values()):
            source += f"; the machine was busy, so up to {ATTEMPTS} processes measure anew"
        ranges = join(functions, refined)
        variants = self._needed(functions, ranges)
        return Decision(variants, ranges, trials, source, self._left_out, is_open=is_open)

    def _guess(self, reason: str) -> Decision:
        """The cost model's word."""
        likely = self._candidates.promising
        guess = self._workbench.guess(self.problem, likely, self._candidates.contents)
        variants = self._needed(functions_of(likely), guess.ranges)
        basis = "; ".join(filter(None, (reason, guess.basis)))
        if not variants:
            basis = f"{self.problem.spec.baseline} is no slower ({basis})"
        return Decision(variants, guess.ranges, (), basis, self._left_out)

    def _without_timings(self) -> Decision:
        """Where the record lacks what is needed, or no candidate could be measured."""
        tune, dropped = self.problem.tune, self._timings.dropped
        if tune == "cached" or not dropped:
            return self._guess(f"not in the tuning record (tune is {tune})")
        name, why = next(iter(dropped.items()))
        reason = f"could not be measured ({name}: {why})"
        if self.problem.dense is DenseUse.NEVER or self.problem.layout:
            return self._guess(reason)
        return Decision((), (), (), reason, self._left_out, is_choice=False)

    def _needed(
        self, functions: Sequence[Function], ranges: Sequence[Range]
    ) -> tuple[Variant, ...]:
        """The variants that ranges need; none where dense serves and no graph reads the layout."""
        if not self.problem.layout and all(part.dense for part in ranges):
            return ()
        return variants_of(functions, ranges)

    @property
    def _left_out(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self._timings.dropped.items()))

    def _refined(
        self,
        functions: Sequence[Function],
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
        rivals: Sequence[Function],
        dense: bool,
        timings: dict[int, dict[str, Timing]],
        rows: int,
    ) -> bool:
        """Whether a choice beats its rival at one m; what was measured for it goes to timings."""
        if not all(f.serves(rows) for f in rivals if f.name == name):
            return False
        full = self.problem.tune == "full"
        timed = self._timings.at(rows, rivals) if full else self._timings.known(rows)
        if any(f.name not in timed for f in rivals if f.serves(rows)):
            return False
        timings[rows] = timed
        return choose_function(rivals, timed, dense=dense) == name
