"""Correctness on a GPU: every template x schedule against float64, before anything is timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.bench.aot.cases import Case, registry_cases, weight_like
from sparsecompile.bench.gpu.failures import failures
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.kernels.codegen import Codegen, Device
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import linear
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry
from sparsecompile.testing.operator_laws import check_problem

SHAPE = (144, 328)
"""Sides that no tile divides."""
ROWS = (1, 7, 16, 70, 200)
"""One m for every range of every template, with ragged ends."""

Call = Callable[[Kernel, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Wrong:
    """A kernel that is further from float64 than it may be.

    Attributes:
        what: spec, template and schedule.
        rows: m.
        error: its largest error against float64; NaN where it did not run.
        allowed: twice that of the dense linear, and the rounding of the result.
        note: why it did not run.
    """

    what: str
    rows: int
    error: float
    allowed: float
    note: str = ""

    def __str__(self) -> str:
        """`linear ... m=7: error 0.3, allowed 0.01`."""
        if self.note:
            return f"{self.what} m={self.rows}: {self.note}"
        return f"{self.what} m={self.rows}: error {self.error:.3g}, allowed {self.allowed:.3g}"


def correctness_cases(
    registry: Registry, target: Target, dtypes: Iterable[torch.dtype]
) -> Iterator[Case]:
    """Every template of linears for every format and dtype, and every schedule of it.

    The default schedule with all of them; those of a full search take turns.

    Args:
        registry: where the templates are.
        target: a GPU.
        dtypes: of the activations.
    """
    turns: Counter[TritonTemplate[Any]] = Counter()
    for case in registry_cases(registry, target, dtypes):
        if not isinstance(case.spec, KernelSpec):
            continue
        yield case
        others = [s for s in case.template.search(case.spec, target) if s != case.schedule]
        if others:
            yield replace(case, schedule=others[turns[case.template] % len(others)])
            turns[case.template] += 1


def call_op(kernel: Kernel, x: Tensor, layout: Tensor, n: int) -> Tensor:
    """The op that compiled graphs call."""
    return linear(x, layout, None, (), n, kernel.key)


def check_correctness(
    cases: Iterable[Case],
    registry: Registry,
    device: torch.device,
    call: Call = call_op,
    rows: Iterable[int] = ROWS,
) -> Iterator[tuple[Case, list[Wrong]]]:
    """Hold every case against float64 on the unpacked weight, for every range of m.

    Args:
        cases: what to check.
        registry: where their templates and fragments are.
        device: where they run.
        call: how.
        rows: the m.

    Yields:
        Each case, and what is wrong with it.
    """
    for case in cases:
        spec: Any = case.spec
        packed = spec.format.pack(weight_like(spec, SHAPE, case.zeros))
        build = TritonCodegen().build
        kernel = build(spec, case.template, case.schedule, case.target, registry)
        layout, weight = kernel.prepack(packed).to(device), packed.unpack(torch.float32)
        wrong = []
        for count in rows:
            x = torch.randn(count, SHAPE[1], generator=torch.Generator().manual_seed(count))
            x = x.to(spec.dtype)
            what = f"{spec} {case.template.name} {case.schedule}"
            try:
                got = call(kernel, x.to(device), layout, SHAPE[0]).cpu()
            except failures() as failure:
                nan, note = float("nan"), " ".join(str(failure).split())[:200]
                wrong.append(Wrong(what, count, nan, nan, note or repr(failure)))
                continue
            error, allowed = _errors(x, weight, got)
            # Not `>`: NaN is wrong too.
            if not error <= allowed:
                wrong.append(Wrong(what, count, error, allowed))
        yield case, wrong


def check_operators(
    registry: Registry, target: Target, device: torch.device
) -> Iterator[tuple[Problem[Any], str]]:
    """Hold kernels of nodes that read no weight against float64, by the laws of their operators.

    Args:
        registry: where operators and templates are.
        target: a GPU.
        device: where they run.

    Yields:
        Each example of an operator, and what is wrong with it; empty if nothing is.
    """
    where = Device(registry.get(Codegen, target.device), target, registry)
    for operator in registry.all(Operator):
        for problem, sample in operator.examples():
            wrong = ""
            try:
                check_problem(operator, problem, sample, where, device)
            except failures() as failure:
                wrong = " ".join(str(failure).split())[:200] or repr(failure)
            yield problem, wrong


def _errors(x: Tensor, weight: Tensor, got: Tensor) -> tuple[float, float]:
    """The largest error of a result against float64, and how large it may be."""
    want = F.linear(x.double(), weight.double())
    dense = F.linear(x, weight.to(x.dtype)).double()
    size = float(want.abs().max())
    rounding = torch.finfo(x.dtype).eps / 2 * size
    allowed = 2 * max(float((dense - want).abs().max()), rounding)
    allowed += torch.finfo(torch.float32).eps * (1 + size)
    return float((got.double() - want).abs().max()), allowed
