"""Laws of operators: what is generated for them computes what the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format
from sparsecompile.kernels.codegen import Codegen, Device
from sparsecompile.kernels.contents import Contents, Sample
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry
from sparsecompile.testing.laws import assert_no_worse

ROWS = (1, 3, 17)
CPU = torch.device("cpu")


def check_operator(
    operator: Operator[Any],
    format: Format,
    weight: Tensor,
    registry: Registry,
    target: Target | None = None,
) -> bool:
    """Kernels of an operator are as near to the exact result as the dense baseline is.

    Args:
        operator: the operator.
        format: of the weight.
        weight: `[n, k]`; without the structure there is nothing to check.
        registry: what kernels are made of.
        target: where they run; by default this CPU.

    Returns:
        Whether there was something to check.

    Raises:
        AssertionError: a law does not hold.
    """
    target = target or Target.host()
    device = Device(registry.get(Codegen, target.device), target, registry)
    try:
        spec = operator.spec(format, weight.dtype)
    except Reject:
        return False
    assert spec.operator == operator.name
    assert str(spec).split()[0] == operator.name, f"{spec} does not begin with {operator.name}"
    assert hash(spec) == hash(operator.spec(format, weight.dtype))
    try:
        packed = format.pack(weight)
        device.check(spec)
    except Reject:
        return False
    shape = (weight.shape[0], weight.shape[1])
    problem = Problem(spec, shape, ROWS, True, DenseUse.NEVER, "off", 0.5)
    check_problem(operator, problem, Contents(packed), device)
    return True


def check_problem(
    operator: Operator[Any],
    problem: Problem[Any],
    sample: Sample,
    device: Device,
    where: torch.device = CPU,
) -> None:
    """What serves a problem is as near to the exact result as the dense baseline is.

    That is its kernel, and the library calls that graphs may make in the place of it.

    Args:
        operator: whose nodes it is for.
        problem: what is needed.
        sample: what it is run on.
        device: this CPU, or another target that runs here.
        where: what tensors are on.

    Raises:
        AssertionError: it is not, or there is none.
    """
    kernel = device.lower({problem: lambda: sample})[problem].kernel
    assert kernel is not None, f"no kernel for {problem} although dense may not serve"
    kernels = [kernel, *_library_calls(operator, problem, device)]
    dense = sample.dense().to(where)
    for rows in problem.rows:
        given = operator.example(problem, rows, torch.Generator().manual_seed(rows))
        inputs = [t.to(where) for t in given]
        wide = [t.double() if t.is_floating_point() else t for t in inputs]
        eager = operator.run_dense(problem, inputs, dense)()
        exact = operator.run_dense(problem, wide, sample.exact().to(where))()
        for each in kernels:
            assert each.spec == problem.spec
            ours = operator.run(problem, inputs, sample.layout(each, where), each)()
            assert_no_worse(ours, eager, exact)
    assert operator.dense_cost(problem).moved(1) > 0


def _library_calls(
    operator: Operator[Any], problem: Problem[Any], device: Device
) -> Iterator[Kernel[Any]]:
    """Those that graphs may make in the place of the problem's kernel."""
    for extern in device.registry.all(InlineExtern):
        if extern.operator == operator.name and extern.fits(problem):
            try:
                extern.supports(problem.spec, device.target)
            except Reject:
                continue
            ranges = (Range(None, "", extern.name, Schedule()),)
            yield Kernel(0, problem.spec, extern, Schedule(), (), ranges, device.registry)
