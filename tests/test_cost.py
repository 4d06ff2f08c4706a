"""What compiling costs before Inductor starts.

Processor time is measured, not wall time, which would measure what else the machine does.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import sympy
import torch
from torch import nn

import sparsecompile as sc
from sparsecompile.detection.survey import survey
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.lowering.slots import PackedSlot
from sparsecompile.weights.expression import Leaf

SMOLLM2 = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]
LAYERS = 10


@pytest.mark.slow
def test_detection_and_packing_of_smollm2() -> None:
    """Less than 12 times what it takes to sort the magnitudes of every four weights once.

    Half of it looks for grids, some 15 ms a weight of any size.
    """
    structure = sc.NM(2, 4)
    weights = []
    for shape in SMOLLM2 * LAYERS:
        weight = torch.randn(shape, dtype=torch.bfloat16)
        weights.append(nn.Parameter(weight * structure.prune(weight), False))
    compiler = sc.Compiler()
    spec = sc.KernelSpec(compiler.registry.format("n_m[2:4]"), torch.bfloat16)
    problem = Problem(spec, (576, 576), (1,), False, DenseUse.NEVER, "off", 0.5)
    lowerings = compiler.device.lower({problem: lambda: Contents(spec.format.pack(weights[0]))})
    kernel = lowerings[problem].kernel
    assert kernel is not None

    # Dynamo has imported sympy before it calls a backend.
    assert sympy
    packing = sorting = 0.0
    for weight in weights:
        start = time.process_time()
        leaf = Leaf(0, "weight")
        found = survey(leaf, (weight,), compiler.formats, compiler.device)
        assert found.format() == spec.format
        PackedSlot(leaf, spec.format, kernel).weight([weight])
        middle = time.process_time()
        weight.view(-1, 4).abs().argsort(dim=1)
        packing += middle - start
        sorting += time.process_time() - middle
    assert packing < 12 * sorting


def test_import_time() -> None:
    script = """
import time, torch
start = time.process_time()
from sparsecompile import *
seconds = time.process_time() - start
import sys
heavy = {"sympy", "rich", "typer", "triton", "torch._inductor", "sparsecompile.codegen"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print(seconds)
"""
    run = [sys.executable, "-c", script]
    times = [
        float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.3
