"""CppCodegen: candidates -> text -> library -> kernel of the native op."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from functools import partial
from typing import Any

import torch

from sparsecompile.codegen.cpp.build import is_new
from sparsecompile.codegen.cpp.built import load_source
from sparsecompile.codegen.cpp.entry import Entry
from sparsecompile.codegen.cpp.gain import nothing_to_gain
from sparsecompile.codegen.cpp.machine import known_machine
from sparsecompile.codegen.cpp.native import start_loading
from sparsecompile.codegen.cpp.onednn import onednn_for
from sparsecompile.codegen.cpp.region import load_region
from sparsecompile.codegen.cpp.workbench import CppWorkbench
from sparsecompile.codegen.tuning.codegen import TunedCodegen
from sparsecompile.codegen.tuning.contest import Build
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.errors import BuildError, CacheError
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.region import Region
from sparsecompile.kernels.spec import Spec, digest
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.registry import Registry

logger = logging.getLogger("sparsecompile")


class CppCodegen(TunedCodegen):
    """Kernels for CPUs; safe to call from several threads, one kernel is built once."""

    device = "cpu"
    language = "cpp"
    packers = (Template, InlineExtern)
    switches = True

    def __init__(self) -> None:
        self._kernels: dict[int, Kernel[Any]] = {}
        self._building: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._table = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Kernels are loaded into this process: what is pickled builds its own."""
        return type(self), ()

    def start(self) -> None:
        """Begin to build the native library."""
        start_loading()

    def nothing_to_gain(
        self, shape: tuple[int, int], rows: tuple[int, ...], dtype: torch.dtype
    ) -> str:
        """By what any machine moves and computes in no time."""
        return nothing_to_gain(shape, rows, dtype)

    def serve(self, call: int, kernel: Kernel[Any]) -> None:
        """Calls are known as kernels are."""
        kernel.registry.get(Entry, kernel.spec.operator).serve(call, kernel.key)

    def region(self, region: Region, target: Target) -> tuple[int, Source]:
        """One generated source, and a row of the native library's table."""
        return load_region(region, target)

    def dense_copy(self, dtype: torch.dtype) -> DenseCopy | None:
        """In oneDNN's order, where that is to be had."""
        return onednn_for(dtype)

    def workbench(self, target: Target, registry: Registry) -> CppWorkbench:
        """This CPU."""
        return CppWorkbench(target)

    def builder(self, target: Target, registry: Registry) -> Build:
        """See `assemble`."""
        return partial(self.assemble, target=target, registry=registry)

    def read_bandwidth(self) -> float | None:
        """What this machine reads with torch's number of threads, if it was ever measured."""
        try:
            machine = known_machine(max(1, torch.get_num_threads()))
        except (BuildError, CacheError):
            return None
        return machine.read_bandwidth if machine is not None else None

    def assemble(
        self,
        spec: Spec,
        variants: tuple[Variant, ...],
        ranges: tuple[Range, ...],
        target: Target,
        registry: Registry,
    ) -> Kernel[Any]:
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
            RegistrationError: there is no `Entry` for the operator.
        """
        key = kernel_key(spec, variants, ranges, target)
        with self._table:
            lock = self._building[key]
        with lock:
            if key not in self._kernels:
                self._kernels[key] = _load_kernel(key, spec, variants, ranges, target, registry)
                logger.info("%s: %s", spec, ", ".join(map(str, ranges)))
            return self._kernels[key]


def kernel_key(
    spec: Spec, variants: tuple[Variant, ...], ranges: tuple[Range, ...], target: Target
) -> int:
    """What graphs call a kernel: 63 bits, positive, the same in every process."""
    texts = (source.text for source in _sources(variants))
    return (int(digest(str(spec), *texts, repr(ranges), str(target))[:16], 16) >> 1) | 1


def _sources(variants: tuple[Variant, ...]) -> tuple[Source, ...]:
    return tuple(v.source for v in variants if v.source is not None)


def _load_kernel(
    key: int,
    spec: Spec,
    variants: tuple[Variant, ...],
    ranges: tuple[Range, ...],
    target: Target,
    registry: Registry,
) -> Kernel[Any]:
    sources, first = _sources(variants), variants[0]
    template, schedule = first.template, first.schedule
    if isinstance(template, InlineExtern):
        return Kernel(key, spec, template, schedule, sources, ranges, registry)
    entry = registry.get(Entry, spec.operator)
    # Before the native library, which may still be building beside this.
    built = {source.name: load_source(source, target, entry.symbols) for source in sources}
    relayout = entry.register(key, spec, first, ranges, built)
    origins = {
        name: "" if is_new(each.path) else str(each.path.parent) for name, each in built.items()
    }
    return Kernel(
        key, spec, template, schedule, sources, ranges, registry, relayout, origins=origins
    )


COMPONENTS = (CppCodegen(),)
