"""Contest: candidates for a problem, built and ready to be measured against the dense linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.cpp.function import CppFunction
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.codegen.cpp.variant import Variant
from sparsecompile.codegen.tuning.choose import DENSE
from sparsecompile.codegen.tuning.measure import Contestant
from sparsecompile.ops import linear
from sparsecompile.packed import Packed
from sparsecompile.spec import KernelSpec
from sparsecompile.template import Kernel, Range

COLD_ROWS = 8
"""Up to this m a call reads far more weight than it computes, and finds it in memory."""

Build = Callable[[KernelSpec, tuple[Variant, ...], tuple[Range, ...]], Kernel]


class Contest:
    """Candidates for one weight; each layout is made once.

    Args:
        spec: what they compute.
        packed: the weight.
        build: makes a kernel of functions.
    """

    def __init__(self, spec: KernelSpec, packed: Packed, build: Build) -> None:
        self._spec, self._packed, self._build = spec, packed, build
        self._dense = packed.unpack()
        self._layouts: dict[str, Tensor] = {}

    def contestants(self, rows: int, functions: Sequence[CppFunction]) -> dict[str, Contestant]:
        """The dense linear and the functions, by name, on random activations `[rows, k]`.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        n, k = self._packed.shape
        # The model's own random numbers must not depend on whether something was measured.
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, k, generator=generator).to(self._spec.dtype)
        # Functions of one variant share a library, which is compiled once: a worker for each.
        firsts = {f.variant: f for f in functions}
        with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
            list(pool.map(self._kernel, firsts.values()))
        kernels = [self._kernel(f) for f in functions]
        dense = self._dense
        found = {DENSE: _contestant(lambda: F.linear(x, dense), dense, rows)}
        for function, kernel in zip(functions, kernels, strict=True):
            layout = self._layout(function, kernel)
            found[function.name] = _contestant(_call(x, layout, n, kernel.key), layout, rows)
        return found

    def _kernel(self, function: CppFunction) -> Kernel:
        return self._build(self._spec, (function.variant,), (function.range(None),))

    def _layout(self, function: CppFunction, kernel: Kernel) -> Tensor:
        if function.layout not in self._layouts:
            self._layouts[function.layout] = kernel.prepack(self._packed)
        return self._layouts[function.layout]


def _contestant(run: Callable[[], object], weight: Tensor, rows: int) -> Contestant:
    evict = load_native().evict
    return Contestant(run, (lambda: evict(weight)) if rows <= COLD_ROWS else _nothing)


def _call(x: Tensor, layout: Tensor, n: int, key: int) -> Callable[[], object]:
    return lambda: linear(x, layout, None, (), n, key)


def _nothing() -> None:
    """Leave the caches as they are."""
