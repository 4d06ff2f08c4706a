"""CppCodegen: spec -> candidates -> choice -> text -> library -> kernel of the native op."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import defaultdict
from pathlib import Path

from sparsecompile.codegen.cpp.build import load_built, open_library
from sparsecompile.codegen.cpp.compiler import Compiler
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.native import DTYPES, MAX_RANGES, NativeKernel, load_native
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.errors import Reject, SparseCompileError
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target, digest
from sparsecompile.template import Codegen, Extern, Kernel, Source, Template

logger = logging.getLogger("sparsecompile")
Candidate = tuple[Template, Schedule] | Extern


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

        Where the weight is dense as it is, that is a library, else a template; a spec that no
        template supports has no candidates, since a dense weight needs no packing.

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
        if spec.format.structure.family == "dense" and spec.format.codec.lossless:
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
        key = kernel_key(source, target)
        with self._table:
            lock = self._building[key]
        with lock:
            if key not in self._kernels:
                kernel = Kernel(key, spec, template, schedule, source)
                _load_kernel(kernel, target)
                logger.info("%s: %s, %s", spec, template.name, schedule)
                self._kernels[key] = kernel
            return self._kernels[key]


def kernel_key(source: Source, target: Target) -> int:
    """What graphs call a kernel: 63 bits, positive, the same in every process."""
    return (int(digest(source.text, str(target))[:16], 16) >> 1) | 1


def _load_kernel(kernel: Kernel, target: Target) -> None:
    if len(kernel.source.kernels) > MAX_RANGES:
        raise SparseCompileError(
            f"{kernel.source.name} has {len(kernel.source.kernels)} ranges of m, "
            f"at most {MAX_RANGES} are possible"
        )
    register = load_native()

    def flags(compiler: Compiler) -> tuple[str, ...]:
        return compiler.flags(target)

    def load(path: Path) -> NativeKernel:
        return _native_kernel(kernel, open_library(path))

    register(load_built(kernel.source.name, kernel.source.text, flags, load))


def _native_kernel(kernel: Kernel, library: ctypes.CDLL) -> NativeKernel:
    spec = kernel.spec
    native = NativeKernel(
        key=kernel.key,
        layout=layout_id(kernel.template.name, spec.format, spec.dtype),
        dtype=DTYPES[spec.dtype],
        operands=spec.operands,
        epilogue=bool(spec.epilogue),
        ranges=len(kernel.source.kernels),
        workspace=_address(library, "sc_workspace"),
        unpack=_address(library, "sc_unpack"),
    )
    for i, (symbol, largest_m) in enumerate(kernel.source.kernels):
        native.linear[i] = _address(library, symbol)
        native.largest_m[i] = 2**62 if largest_m is None else largest_m
    return native


def _address(library: ctypes.CDLL, symbol: str) -> int | None:
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value


COMPONENTS = (CppCodegen(),)
