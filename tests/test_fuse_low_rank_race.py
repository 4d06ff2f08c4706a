"""`fuse_low_rank`: time decides where it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from chains import Chain
from torch import Tensor

from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.kernel import Lowering
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.trial import Trial
from sparsecompile.passes.fuse_low_rank import FuseLowRank
from sparsecompile.testing import apply_passes, captured

Times = Callable[[tuple[int, ...], int], float]


def fused_by(seconds: Times, patch: pytest.MonkeyPatch, x: Tensor) -> str:
    """Why a chain is not multiplied out where linears take so long, by shape and m."""

    def lower(device: Device, problems: Mapping[Problem, object]) -> dict[Problem, Lowering]:
        return {p: Lowering(None, trials(p), "made up") for p in problems}

    def trials(problem: Problem) -> tuple[Trial, ...]:
        times = [(m, seconds(problem.shape, m)) for m in problem.rows]
        return tuple(Trial(m, "dense", t, 0.01, 1, True) for m, t in times if t)

    patch.setattr(Device, "lower", lower)
    gm, inputs = captured(Chain(256, 512, 256), x)
    (rewrite,) = apply_passes([FuseLowRank("fast")], gm, inputs).rewrites
    return rewrite.reason


@pytest.mark.parametrize(
    ("product", "factor", "reason"),
    [
        (0.3, 0.2, ""),
        (0.4, 0.2, "is no faster: m=3 410 ms, dense 400 ms"),
        (0.0, 0.2, ""),
    ],
)
def test_time_decides_where_it_is_measured(
    product: float, factor: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(shape: tuple[int, ...], m: int) -> float:
        return product if shape == (256, 256) else factor

    found = fused_by(seconds, monkeypatch, torch.randn(3, 256))
    assert found.endswith(reason)
    assert bool(found) == bool(reason)


def test_it_has_to_be_faster_at_any_m_that_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(shape: tuple[int, ...], m: int) -> float:
        return 0.1 if shape != (256, 256) or m < 512 else 0.3

    x = torch.randn(7, 256)
    torch._dynamo.mark_dynamic(x, 0)
    assert "m=512 310 ms" in fused_by(seconds, monkeypatch, x)
