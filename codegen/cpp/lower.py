"""CppCodegen: spec -> candidates -> choice -> text -> library -> kernel of the native op."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from sparsecompile.codegen.candidates import Candidate, find_candidates
from sparsecompile.codegen.cpp.built import load_source
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.machine import known_machine
from sparsecompile.codegen.cpp.native import DTYPES, MAX_RANGES, NativeKernel, load_native
from sparsecompile.codegen.cpp.tune import Decision, Tuner
from sparsecompile.codegen.cpp.variant import Variant
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.errors import BuildError, CacheError, SparseCompileError
from sparsecompile.extern import Extern
from sparsecompile.packed import Packed
from sparsecompile.problem import Problem
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target, digest
from sparsecompile.template import Codegen, Kernel, Lowering, Range, Template

logger = logging.getLogger("sparsecompile")


class CppCodegen(Codegen):
    """Kernels for CPUs; safe to call from several threads, one kernel is built once."""

    device = "cpu"

    def __init__(self) -> None:
        self._kernels: dict[int, Kernel] = {}
        self._building: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._table = threading.Lock()

    def sources_digest(self) -> str:
        """Stands for every file of this package."""
        return sources_digest()

    def candidates(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Candidate]:
        """See `find_candidates`.

        Raises:
            Reject: no candidates; every refusal is in the reason.
        """
        return find_candidates("cpp", spec, target, registry)

    def lower(
        self,
        problems: Mapping[Problem, Callable[[], Packed]],
        target: Target,
        registry: Registry,
    ) -> dict[Problem, Lowering]:
        """Decide each problem and build what serves it; see `Tuner`.

        Problems that differ by their epilogues only are decided once, without them.

        Raises:
            Reject: no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        plain = {p: replace(p, spec=replace(p.spec, epilogue=())) for p in problems}
        samples = {plain[p]: sample for p, sample in problems.items()}
        variants = {p.spec: self.variants(p.spec, target, registry) for p in samples}
        searched = {p.spec: self.searched(p.spec, target, registry) for p in samples}
        threads = max(1, torch.get_num_threads())

        def build(
            spec: KernelSpec, parts: tuple[Variant, ...], ranges: tuple[Range, ...]
        ) -> Kernel:
            return self.assemble(spec, parts, ranges, target, registry)

        def finish(problem: Problem) -> Lowering:
            decision = decisions[plain[problem]]
            if not decision.variants:
                return Lowering(None, decision.trials, decision.reason)
            kernel = self._with_epilogue(problem.spec, decision, target, registry)
            return Lowering(kernel, decision.trials, decision.reason)

        decisions = {
            p: Tuner(p, variants[p.spec], searched[p.spec], sample, target, build).decide()
            for p, sample in samples.items()
        }
        with ThreadPoolExecutor(max_workers=threads) as pool:
            return dict(zip(problems, pool.map(finish, problems), strict=True))

    def variants(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Variant]:
        """Every template x schedule for a spec, rendered.

        Raises:
            Reject: there are none.
        """
        found = (c for c in self.candidates(spec, target, registry) if not isinstance(c, Extern))
        return [Variant(t, s, t.render(spec, s, target, registry)) for t, s in found]

    def searched(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Variant]:
        """Every template x schedule that a full search looks at, rendered.

        Raises:
            Reject: there are none.
        """
        found = (c for c in self.candidates(spec, target, registry) if not isinstance(c, Extern))
        return [
            Variant(t, s, t.render(spec, s, target, registry))
            for t in dict.fromkeys(template for template, _ in found)
            for s in t.search(spec, target)
        ]

    def read_bandwidth(self) -> float | None:
        """What this machine reads with torch's number of threads, if it was ever measured."""
        try:
            machine = known_machine(max(1, torch.get_num_threads()))
        except (BuildError, CacheError):
            return None
        return machine.read_bandwidth if machine is not None else None

    def _with_epilogue(
        self, spec: KernelSpec, decision: Decision, target: Target, registry: Registry
    ) -> Kernel:
        """The decided kernel for a spec that may have an epilogue."""
        renamed: dict[str, str] = {}
        variants = []
        for variant in decision.variants:
            source = variant.template.render(spec, variant.schedule, target, registry)
            renamed[variant.source.name] = source.name
            variants.append(replace(variant, source=source))
        ranges = tuple(replace(r, source=renamed[r.source]) for r in decision.ranges)
        return self.assemble(spec, tuple(variants), ranges, target, registry)

    def build(
        self,
        spec: KernelSpec,
        template: Template,
        schedule: Schedule,
        target: Target,
        registry: Registry,
    ) -> Kernel:
        """The kernel of one template and schedule.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        source = template.render(spec, schedule, target, registry)
        ranges = tuple(Range(m, source.name, symbol, schedule) for symbol, m in source.kernels)
        variants = (Variant(template, schedule, source),)
        return self.assemble(spec, variants, ranges, target, registry)

    def assemble(
        self,
        spec: KernelSpec,
        variants: tuple[Variant, ...],
        ranges: tuple[Range, ...],
        target: Target,
        registry: Registry,
    ) -> Kernel:
        """A kernel out of functions of several sources that read one layout.

        Args:
            spec: what it computes.
            variants: the first makes the layout.
            ranges: by rising m, the last without an end.
            target: where it runs.
            registry: what the first makes it with.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
            SparseCompileError: more ranges than a kernel can have.
        """
        if len(ranges) > MAX_RANGES:
            raise SparseCompileError(
                f"a kernel for {spec} has {len(ranges)} ranges of m, at most {MAX_RANGES} "
                "are possible"
            )
        key = kernel_key(spec, variants, ranges, target)
        with self._table:
            lock = self._building[key]
        with lock:
            if key not in self._kernels:
                self._kernels[key] = _load_kernel(key, spec, variants, ranges, target, registry)
                logger.info("%s: %s", spec, ", ".join(map(str, ranges)))
            return self._kernels[key]


def kernel_key(
    spec: KernelSpec, variants: tuple[Variant, ...], ranges: tuple[Range, ...], target: Target
) -> int:
    """What graphs call a kernel: 63 bits, positive, the same in every process."""
    texts = (v.source.text for v in variants)
    return (int(digest(str(spec), *texts, repr(ranges), str(target))[:16], 16) >> 1) | 1


def _load_kernel(
    key: int,
    spec: KernelSpec,
    variants: tuple[Variant, ...],
    ranges: tuple[Range, ...],
    target: Target,
    registry: Registry,
) -> Kernel:
    native_library = load_native()
    built = {v.source.name: load_source(v.source, target) for v in variants}
    first = variants[0]
    layout = layout_id(first.template.layout(first.schedule), spec.format, spec.dtype)
    native = NativeKernel(
        key=key,
        layout=layout,
        dtype=DTYPES[spec.dtype],
        operands=spec.operands,
        epilogue=bool(spec.epilogue),
        ranges=len(ranges),
        unpack=built[first.source.name].functions["sc_unpack"],
        finish=built[first.source.name].functions["sc_finish"],
    )
    for i, part in enumerate(ranges):
        functions = built[part.source].functions
        native.linear[i] = functions[part.symbol]
        native.workspace[i] = functions["sc_workspace"]
        native.largest_m[i] = 2**62 if part.largest_m is None else part.largest_m
        native.dense[i] = part.dense
    native_library.register(native)
    relayout = built[first.source.name].relayout(layout)
    sources = tuple(v.source for v in variants)
    template, schedule = first.template, first.schedule
    return Kernel(key, spec, template, schedule, sources, ranges, registry, relayout)


COMPONENTS = (CppCodegen(),)
