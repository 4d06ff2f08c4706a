"""CppCodegen: spec -> candidates -> choice -> text -> library -> kernel of the native op."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from dataclasses import dataclass

from sparsecompile.codegen.cpp.built import load_source
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.native import DTYPES, MAX_RANGES, NativeKernel, load_native
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.errors import Reject, SparseCompileError
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target, digest
from sparsecompile.template import Codegen, Extern, Kernel, Range, Source, Template

logger = logging.getLogger("sparsecompile")
Candidate = tuple[Template, Schedule] | Extern


@dataclass(frozen=True)
class Variant:
    """A template with a schedule, rendered."""

    template: Template
    schedule: Schedule
    source: Source


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
        """Everything that can serve the spec, best guess first.

        Where the weight is dense that is a library, else a template; a spec that no template
        supports has no candidates, since a dense weight needs no packing.

        Raises:
            Reject: no candidates; every refusal is in the reason.
        """
        refusals: list[str] = []
        externs: list[Candidate] = []
        for extern in registry.all(Extern):
            try:
                extern.supports(spec, target)
            except Reject as refusal:
                refusals.append(f"{extern.name}: {refusal.reason}")
            else:
                externs.append(extern)
        templates: list[Candidate] = []
        for template in registry.all(Template):
            if template.language != "cpp":
                continue
            try:
                template.supports(spec, target, registry)
            except Reject as refusal:
                refusals.append(f"{template.name}: {refusal.reason}")
            else:
                templates += [(template, s) for s in template.schedules(spec, target)]
        if spec.format.structure.family == "dense":
            templates, externs = externs, templates
        if not templates:
            raise Reject(f"no kernel for {spec}: {'; '.join(refusals) or 'nothing registered'}")
        return templates + externs

    def lower(self, spec: KernelSpec, target: Target, registry: Registry) -> Kernel | Extern:
        """The first candidate, built and loaded; measuring them would begin here.

        Raises:
            Reject: no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        choice = self.candidates(spec, target, registry)[0]
        if isinstance(choice, Extern):
            logger.info("%s: %s", spec, choice.name)
            return choice
        template, schedule = choice
        return self.build(spec, template, schedule, target, registry)

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
        return self.assemble(spec, (Variant(template, schedule, source),), ranges, target)

    def assemble(
        self,
        spec: KernelSpec,
        variants: tuple[Variant, ...],
        ranges: tuple[Range, ...],
        target: Target,
    ) -> Kernel:
        """A kernel out of functions of several sources that read one layout.

        Args:
            spec: what it computes.
            variants: the first makes the layout.
            ranges: by rising m, the last without an end.
            target: where it runs.

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
                self._kernels[key] = _load_kernel(key, spec, variants, ranges, target)
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
) -> Kernel:
    register = load_native()
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
    register(native)
    relayout = built[first.source.name].relayout(layout)
    sources = tuple(v.source for v in variants)
    return Kernel(key, spec, first.template, first.schedule, sources, ranges, relayout)


COMPONENTS = (CppCodegen(),)
