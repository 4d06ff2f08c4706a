"""Random shapes, rows and zeros over kernels that are built once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings
from kernel_cases import KernelCase, drawn_cases
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.kernel import Kernel

# 1500, and 50,000 of the profile `thorough`.
TRIALS = 50 * settings().max_examples
# Weights are packed once for so many calls: packing takes longer than a call.
CALLS = 5


@dataclass(frozen=True)
class Trial:
    """Everything a trial is made of: `Trial(...)` as it is printed can be run again."""

    case: KernelCase
    symbol: str
    largest_m: int | None
    n: int
    k: int
    sparsity: float
    empty_rows: float
    empty_columns: float
    seed: int


def trials(kernels: dict[KernelCase, Kernel]) -> list[Trial]:
    draw = random.Random(0)
    found = []
    for i in range(TRIALS // CALLS):
        case = draw.choice(list(kernels))
        symbol, largest = draw.choice(kernels[case].sources[0].kernels)
        n, k = draw.choice(((100, 300), (40, 40), (17, 33)))
        zeros = [draw.choice((0.0, 0.3, 0.9, 1.0)) for _ in range(3)]
        found.append(
            Trial(case, symbol, largest, draw.randint(0, n), draw.randint(0, k), *zeros, seed=i)
        )
    return found


def weight_of(trial: Trial) -> Tensor:
    """A weight of the structure with runs of rows and columns that are zero."""
    structure, generator = trial.case.spec.format.structure, torch.Generator()
    generator.manual_seed(trial.seed)
    weight = torch.randn(trial.n, trial.k, generator=generator)
    for sparsity in (None, trial.sparsity):
        try:
            weight = weight * structure.prune(weight, sparsity)
        except ValueError:
            continue
        break
    weight[_run(trial.n, trial.empty_rows, generator)] = 0
    weight[:, _run(trial.k, trial.empty_columns, generator)] = 0
    return weight.to(trial.case.spec.dtype)


def _run(side: int, share: float, generator: torch.Generator) -> slice:
    length = int(share * side)
    first = int(torch.randint(0, side - length + 1, (), generator=generator))
    return slice(first, first + length)


def packed_of(trial: Trial) -> Packed:
    weight = weight_of(trial)
    try:
        return trial.case.spec.format.pack(weight)
    except Reject:
        return trial.case.spec.format.pack(torch.zeros_like(weight))


@pytest.mark.slow
def test_random_trials(
    build_case: Callable[..., Kernel], check_linear: Callable[..., None]
) -> None:
    kernels = {case: build_case(case) for case in drawn_cases()}
    for trial in trials(kernels):
        kernel, draw = build_case(trial.case, trial.symbol), random.Random(trial.seed)
        packed = packed_of(trial)
        dense = torch.ops.sparsecompile.unpack(
            kernel.prepack(packed), torch.empty(0, dtype=packed.dtype), *packed.shape, kernel.key
        )
        assert torch.equal(dense.view(torch.uint8), packed.unpack().view(torch.uint8)), trial
        for _ in range(CALLS):
            m, with_bias = draw.randint(0, trial.largest_m or 72), draw.random() < 0.5
            # Not the weight's own numbers again.
            torch.default_generator.manual_seed(TRIALS + trial.seed)
            try:
                check_linear(kernel, packed, (m,), with_bias)
            except AssertionError as failure:
                pytest.fail(f"m={m}, with_bias={with_bias}, {trial}: {failure}")
