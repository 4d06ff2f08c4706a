"""Tuner: which functions serve a packed linear on this CPU, by measurement or by the cost model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.cpp.build import host_cpu
from sparsecompile.codegen.cpp.cache import Cache
from sparsecompile.codegen.cpp.machine import Machine, measure_machine
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.codegen.cpp.variant import Variant
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.tuning.choose import (
    DENSE,
    LAYOUT_ROWS,
    Function,
    choose_function,
    choose_layout,
)
from sparsecompile.codegen.tuning.measure import Contestant, measure
from sparsecompile.codegen.tuning.record import Timing, TuningRecord
from sparsecompile.ops import linear
from sparsecompile.packed import Packed
from sparsecompile.problem import Contents, Problem, Trial
from sparsecompile.spec import KernelSpec, Target, digest
from sparsecompile.template import Kernel, Range

logger = logging.getLogger("sparsecompile")

COLD_ROWS = 8
"""Up to this m a call reads far more weight than it computes, and finds it in memory."""
CHEAPER = 1.05
"""A candidate is left out where another of its template has to do this much less."""
_measuring = threading.Lock()

Build = Callable[[KernelSpec, tuple[Variant, ...], tuple[Range, ...]], Kernel]


@dataclass(frozen=True)
class CppFunction(Function):
    """A function of a variant's source.

    Attributes:
        variant: where it is.
        symbol: its name there.
        largest_m: the last m it serves, or None.
    """

    variant: Variant
    symbol: str
    largest_m: int | None

    def serves(self, rows: int) -> bool:
        """Whether it can be called with this m."""
        return self.largest_m is None or rows <= self.largest_m


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
        variants: every candidate, best guess first.
        sample: packs a weight of the problem.
        target: where it runs.
        build: makes a kernel of functions.
    """

    def __init__(
        self,
        problem: Problem,
        variants: Sequence[Variant],
        sample: Callable[[], Packed],
        target: Target,
        build: Build,
    ) -> None:
        self.problem, self.target = problem, target
        self._sample, self._build = sample, build
        self._all = variants
        self._threads = torch.get_num_threads()
        self.measured_now = 0

    def decide(self) -> Decision:
        """Measure what has to be measured, and choose.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        problem = self.problem
        if problem.tune == "off":
            return self._guess("not measured (tune is off)")
        layout_rows = dict.fromkeys((*LAYOUT_ROWS, *problem.rows))
        timings = {rows: self._timings(rows, self._functions) for rows in LAYOUT_ROWS}
        layout = choose_layout(self._functions, timings)
        if layout is None:
            return self._guess("not in the tuning record (tune is cached)")
        functions = [f for f in self._functions if f.layout == layout]
        choices: dict[int, str | None] = {}
        for rows in layout_rows:
            if rows not in timings:
                timings[rows] = self._timings(rows, functions)
            choices[rows] = choose_function(functions, timings[rows], dense=problem.dense)
        if any(choices[rows] is None for rows in problem.rows):
            return self._guess("not in the tuning record (tune is cached)")
        trials = [t for rows in sorted(timings) for t in self._trials(rows, timings, choices)]
        source = "measured" if self.measured_now else "from the tuning record, nothing measured"
        ranges = self._ranges(functions, choices)
        return Decision(_variants_of(functions, ranges), ranges, tuple(trials), source)

    @cached_property
    def contents(self) -> Contents:
        """What is in the sample."""
        return Contents(self._sample())

    @cached_property
    def _dense(self) -> Tensor:
        return self.contents.packed.unpack()

    @cached_property
    def _functions(self) -> list[CppFunction]:
        """Functions of the variants that may win, the most promising first."""
        return [
            CppFunction(f"{v.name} {symbol}", v.layout, v, symbol, largest)
            for v in self._promising()
            for symbol, largest in v.source.kernels
        ]

    def _promising(self) -> list[Variant]:
        """Variants without those whose own template has one that is nowhere more expensive."""
        bounds = {v.name: self._bounds(v) for v in self._all}

        def beats(rival: Variant, variant: Variant) -> bool:
            pairs = list(zip(bounds[rival.name], bounds[variant.name], strict=True))
            return (
                rival.template is variant.template
                and all(theirs <= own for theirs, own in pairs)
                and any(theirs * CHEAPER < own for theirs, own in pairs)
            )

        kept = [v for v in self._all if not any(beats(rival, v) for rival in self._all)]
        return sorted(kept, key=lambda v: sum(bounds[v.name]))

    def _bounds(self, variant: Variant) -> list[float]:
        cost = variant.template.cost(self.problem.spec, variant.schedule, self.contents)
        machine = self._machine
        rate = getattr(machine, f"{cost.kind}_rate")
        return [cost.seconds(rows, machine.read_bandwidth, rate) for rows in LAYOUT_ROWS]

    @cached_property
    def _machine(self) -> Machine:
        if self.problem.tune in ("fast", "full"):
            return measure_machine(self._threads)
        # Only ratios matter where nothing is measured.
        return Machine("", 1, 1e10, 1e10, 0, 0, 1e11, 2e11, 4e11, "", "", "")

    def _guess(self, reason: str) -> Decision:
        """The cost model's word: the most promising variant for every m."""
        variant = self._promising()[0]
        ranges = tuple(
            Range(largest, variant.source.name, symbol, variant.schedule)
            for symbol, largest in variant.source.kernels
        )
        return Decision((variant,), ranges, (), reason)

    def _timings(self, rows: int, functions: Sequence[CppFunction]) -> dict[str, Timing]:
        """Timings at one m, from the record and, where it lacks some, measured."""
        record, key = TuningRecord(), self._key(rows)
        known = record.timings(key)
        wanted = [f for f in functions if f.serves(rows)]
        missing = [f for f in wanted if f.name not in known]
        if not missing or self.problem.tune == "cached":
            return known
        with _measuring, Cache().lock("tuning"):
            known = record.timings(key)
            missing = [f for f in wanted if f.name not in known]
            if missing:
                # All of them anew: timings of different moments cannot be compared.
                timed = measure(self._contestants(rows, wanted), DENSE)
                record.add(key, self._facts(rows), timed)
                self.measured_now += len(timed)
                known |= timed
        return known

    def _contestants(self, rows: int, functions: Iterable[CppFunction]) -> dict[str, Contestant]:
        spec, (n, k) = self.problem.spec, self.problem.shape
        x = torch.randn(rows, k).to(spec.dtype)
        evict = load_native().evict
        functions = list(functions)
        with ThreadPoolExecutor(max_workers=max(1, self._threads)) as pool:
            kernels = list(pool.map(self._trial_kernel, functions))

        def contestant(run: Callable[[], object], weight: Tensor) -> Contestant:
            cold = rows <= COLD_ROWS
            return Contestant(run, (lambda: evict(weight)) if cold else _nothing)

        dense = self._dense
        found = {DENSE: contestant(lambda: F.linear(x, dense), dense)}
        for function, kernel in zip(functions, kernels, strict=True):
            layout = self._layout(function.variant, kernel)
            run = _caller(x, layout, n, kernel.key)
            found[function.name] = contestant(run, layout)
        return found

    def _trial_kernel(self, function: CppFunction) -> Kernel:
        variant = function.variant
        whole = Range(None, variant.source.name, function.symbol, variant.schedule)
        return self._build(self.problem.spec, (variant,), (whole,))

    @cached_property
    def _layouts(self) -> dict[str, Tensor]:
        return {}

    def _layout(self, variant: Variant, kernel: Kernel) -> Tensor:
        if variant.layout not in self._layouts:
            self._layouts[variant.layout] = kernel.prepack(self.contents.packed)
        return self._layouts[variant.layout]

    def _ranges(
        self, functions: Sequence[CppFunction], choices: Mapping[int, str | None]
    ) -> tuple[Range, ...]:
        """Choices as ranges of m: up to the next smaller end of a bucket, equal ones joined."""
        by_name = {f.name: f for f in functions}
        fallback = functions[-1]
        ranges: list[Range] = []
        rows = self.problem.rows
        for i, m in enumerate(rows):
            name = choices[m] or fallback.name
            function = by_name.get(name)
            if function is None:
                function = next(f for f in functions if f.largest_m is None)
            end = None if i + 1 == len(rows) else m
            part = Range(
                end,
                function.variant.source.name,
                function.symbol,
                function.variant.schedule,
                dense=name == DENSE,
            )
            if ranges and replace(ranges[-1], largest_m=end) == part:
                ranges.pop()
            ranges.append(part)
        return tuple(ranges)

    def _trials(
        self,
        rows: int,
        timings: Mapping[int, Mapping[str, Timing]],
        choices: Mapping[int, str | None],
    ) -> list[Trial]:
        spec, (n, k) = self.problem.spec, self.problem.shape
        nbytes = {DENSE: (n * k + rows * (n + k)) * spec.dtype.itemsize}
        for variant in dict.fromkeys(f.variant for f in self._functions):
            cost = variant.template.cost(spec, variant.schedule, self.contents)
            nbytes |= {f.name: cost.moved(rows) for f in self._functions if f.variant == variant}
        return [
            Trial(rows, name, t.seconds, t.noise, nbytes.get(name, 0), choices[rows] == name)
            for name, t in sorted(timings[rows].items(), key=lambda item: item[1].seconds)
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
        facts = (f"{name}={value}" for name, value in self._facts(rows).items())
        return digest(*facts, host_cpu(), sources_digest())


def _caller(x: Tensor, layout: Tensor, n: int, key: int) -> Callable[[], object]:
    return lambda: linear(x, layout, None, (), n, key)


def _nothing() -> None:
    """Leave the caches as they are."""


def _variants_of(functions: Sequence[CppFunction], ranges: Sequence[Range]) -> tuple[Variant, ...]:
    """The variants that ranges need; none where the dense linear serves all of them."""
    if all(part.dense for part in ranges):
        return ()
    names = dict.fromkeys(part.source for part in ranges)
    by_name = {f.variant.source.name: f.variant for f in functions}
    return tuple(by_name[name] for name in names)
