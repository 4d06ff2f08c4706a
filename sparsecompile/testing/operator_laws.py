"""Laws of operators: what is generated for them computes what the model computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format
from sparsecompile.kernels.codegen import Codegen, Device
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.target import Target
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry
from sparsecompile.testing.laws import assert_no_worse

ROWS = (1, 3, 17)


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
    kernel = device.lower({problem: lambda: Contents(packed)})[problem].kernel
    assert kernel is not None, f"no kernel for {problem} although dense may not serve"
    assert kernel.spec == spec
    layout, dense = kernel.prepack(packed), packed.unpack()
    for rows in ROWS:
        inputs = operator.example(problem, rows, torch.Generator().manual_seed(rows))
        wide = [t.double() if t.is_floating_point() else t for t in inputs]
        ours = operator.run(problem, inputs, layout, kernel)()
        eager = operator.run_dense(problem, inputs, dense)()
        exact = operator.run_dense(problem, wide, packed.unpack(torch.float32).double())()
        assert_no_worse(ours, eager, exact)
    cost = operator.dense_cost(problem)
    assert cost.moved(1) > 0
    return True
