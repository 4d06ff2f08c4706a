"""Contest: candidates for a problem, built and ready to be measured against the dense linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.tuning.choose import DENSE
from sparsecompile.codegen.tuning.measure import Contestant
from sparsecompile.codegen.tuning.variant import Function, Variant
from sparsecompile.codegen.tuning.workbench import Workbench
from sparsecompile.errors import BuildError
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.operators.operator import Operator

Build = Callable[[KernelSpec, tuple[Variant, ...], tuple[Range, ...]], Kernel]
"""Makes a kernel of functions."""
Ahead = Callable[[Variant], Sequence[Callable[[], Kernel]]]
"""What else will have to be built should a variant be chosen: its kernels with epilogues."""


class Contest:
    """Candidates for one problem; each layout is made once.

    Args:
        operator: whose nodes they serve.
        problem: what they solve.
        contents: of the weight.
        workbench: where they run.
        build: see `Build`.
        ahead: see `Ahead`.
    """

    def __init__(
        self,
        operator: Operator[Any],
        problem: Problem,
        contents: Sample,
        workbench: Workbench,
        build: Build,
        ahead: Ahead,
    ) -> None:
        self._operator, self._problem = operator, problem
        self._contents, self._workbench = contents, workbench
        self._build, self._ahead = build, ahead
        self._dense = contents.dense().to(workbench.device)
        if problem.dense_copy is not None:
            self._dense = problem.dense_copy.make(self._dense)
        self._layouts: dict[str, Tensor] = {}

    def build(self, functions: Sequence[Function]) -> dict[str, str]:
        """Use all threads while nothing is measured yet: for what is measured, and what follows.

        Functions of one variant share a library, which is compiled once. For the first variant
        compilers run here that would otherwise run after the measurement. Where nothing can be
        built, variants whose epilogues are missing are no candidates.

        Args:
            functions: the best guess first.

        Returns:
            Those whose source cannot be built, with the reason.

        Raises:
            BuildError: the compiler is missing, or does not run, and not one of them is in the
                cache folder.
            CacheError: the cache folder cannot be used.
        """
        firsts = {f.variant: f for f in functions}
        builds: list[tuple[Variant, Callable[[], Kernel]]] = [
            (variant, partial(self._kernel, first)) for variant, first in firsts.items()
        ]
        for variant in list(firsts)[: 1 if self._workbench.builds else None]:
            builds += [(variant, ahead) for ahead in self._ahead(variant)]
        with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
            errors = list(pool.map(lambda each: _error(each[1]), builds))
        failed = {v: error for (v, _), error in zip(builds, errors, strict=True) if error}
        # Without a source it is the compiler that is missing, and no candidate is to blame.
        if failed.keys() == firsts.keys() and all(e.source is None for e in failed.values()):
            for error in failed.values():
                raise error
        return {f.name: _why(failed[f.variant]) for f in functions if f.variant in failed}

    def contestants(
        self, rows: int, functions: Sequence[Function]
    ) -> tuple[dict[str, Contestant], dict[str, str]]:
        """The dense baseline and the functions, on random inputs.

        Args:
            rows: m.
            functions: the best guess first.

        Returns:
            Contestants by name, and those that do not run, with the reason.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        operator, problem = self._operator, self._problem
        # The model's own random numbers must not depend on whether something was measured.
        generator = torch.Generator().manual_seed(0)
        device, ready = self._workbench.device, self._workbench.contestant
        inputs = [t.to(device) for t in operator.example(problem, rows, generator)]
        kernels = [self._kernel(f) for f in functions]
        baseline = operator.run_dense(problem, inputs, self._dense)
        found = {DENSE: ready(baseline, self._dense, rows)}
        failed: dict[str, str] = {}
        for function, kernel in zip(functions, kernels, strict=True):
            try:
                layout = self._layout(function, kernel)
                call = operator.run(problem, inputs, layout, kernel)
                found[function.name] = ready(call, layout, rows)
            except self._workbench.failures as error:
                failed[function.name] = f"m={rows}: {' '.join(str(error).split()) or repr(error)}"
        return found, failed

    def _kernel(self, function: Function) -> Kernel:
        return self._build(self._problem.spec, (function.variant,), (function.range(None),))

    def _layout(self, function: Function, kernel: Kernel) -> Tensor:
        if function.layout not in self._layouts:
            layout = self._contents.layout(kernel, torch.device(self._workbench.device or "cpu"))
            self._layouts[function.layout] = layout
        return self._layouts[function.layout]


def _error(build: Callable[[], Kernel]) -> BuildError | None:
    try:
        build()
    except BuildError as error:
        return error
    return None


def _why(error: BuildError) -> str:
    """What the compiler says of a source."""
    lines = str(error).splitlines()
    what = next((line for line in lines[1:] if "error" in line), "")
    return ": ".join(filter(None, (lines[0], what)))
