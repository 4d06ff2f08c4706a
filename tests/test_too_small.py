"""Weights so small that no kernel can be faster are left dense before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._inductor.config  # notes $CXX when it is imported
from packing import Packing, close, sparse_
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.cpp import lower, native, workbench
from sparsecompile.codegen.cpp.entries import linear
from sparsecompile.codegen.cpp.gain import LEAST_GAIN, nothing_to_gain

TINY = "15 values: nothing to gain: at most 0.006 us of a call"


@pytest.fixture
def unbuilt(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[list[str]]:
    """No compiler works, nothing is loaded yet; what was started or measured all the same."""
    failing = tmp_path / "c++"
    failing.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setenv("CXX", str(failing))
    begun: list[str] = []
    monkeypatch.setattr(lower, "start_loading", lambda: begun.append("start"))
    for module in (linear, native, workbench):
        monkeypatch.setattr(module, "load_native", lambda: begun.append("native"))
    for name in ("measure_machine", "known_machine"):
        monkeypatch.setattr(workbench, name, lambda threads: begun.append("machine"))
    yield begun
    assert not (tmp_path / "ran").exists()


def tiny(n: int = 3, k: int = 5, dtype: torch.dtype = torch.float32) -> nn.Linear:
    return sparse_(nn.Linear(k, n)).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("tune", ["fast", "full", "cached"])
def test_nothing_is_built_for_a_tiny_weight(
    tune: str, dynamic: bool | None, unbuilt: list[str]
) -> None:
    model, backend = tiny(), Packing(tune=tune, strict=True)
    fast = torch.compile(model, backend=backend, dynamic=dynamic)
    x = torch.randn(4, 5)
    close(fast(x), model(x))
    model.weight.mul_(2)
    close(fast(x), model(x))
    (node,) = backend.compiler.report.nodes
    assert not node.packed
    assert node.reason == (TINY if not dynamic else TINY.replace("0.006", "0.15"))
    assert node.packed_bytes == node.dense_bytes
    text = str(backend.compiler.report)
    assert text.count("nothing to gain") == 1
    assert unbuilt == []


def test_merged_and_fused_ones_come_apart(unbuilt: list[str]) -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up = tiny(4, 4), tiny(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.silu(self.gate(x)) * self.up(x)

    model, backend = Gate(), Packing(tune="fast", strict=True)
    x = torch.randn(4, 4)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert "sparsecompile::" not in backend.compiler.report.after
    assert unbuilt == []


def test_a_tiny_weight_that_is_pruned_on_request_is_a_dense_copy(unbuilt: list[str]) -> None:
    model = nn.Linear(5, 3).requires_grad_(False)
    backend = Packing(tune="fast", prune="2:4", strict=True)
    fast = torch.compile(model, backend=backend)
    twin = nn.Linear(5, 3)
    twin.load_state_dict(model.state_dict())
    sparse_(twin)
    x = torch.randn(4, 5)
    with torch.no_grad():
        close(fast(x), twin(x))
        model.bias.add_(1)
        model.weight.mul_(2)
        twin.bias.add_(1)
        twin.weight.mul_(2)
        close(fast(x), twin(x))
    assert backend.reason("weight") == TINY
    assert unbuilt == []


def test_one_that_is_quantised_on_request_stays_packed(tuned: Tuned) -> None:
    backend = Packing(tune="fast", quantize="int8-weight-only")
    model = nn.Linear(5, 3).requires_grad_(False)
    torch.compile(model, backend=backend)(torch.randn(4, 5))
    assert backend.packed == ["weight"]


def test_off_packs_whatever_is_smaller() -> None:
    backend, model = Packing(tune="off"), tiny()
    x = torch.randn(4, 5)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert backend.packed == ["weight"]


def test_larger_ones_are_measured_and_the_library_is_begun_early(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(lower, "start_loading", lambda: begun.append("start"))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = tiny(8, 5), tiny(64, 32)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.small(x[:, :5]), self.large(x)

    backend = Packing(tune="fast")
    torch.compile(Both(), backend=backend)(torch.randn(4, 32))
    assert backend.packed == ["large.weight"]
    assert tuned.rows == [4]
    assert begun == ["start"]
    assert "nothing to gain" in backend.reason("small.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_where_a_gain_begins(dtype: torch.dtype) -> None:
    """By bytes for few rows, by operations for many."""
    k = int(LEAST_GAIN * 1e10 / dtype.itemsize)
    assert nothing_to_gain((1, k - 1), (1,), dtype)
    assert not nothing_to_gain((1, k + 1), (1,), dtype)
    assert not nothing_to_gain((4096, 4096), (1,), dtype)
    m = math.ceil(LEAST_GAIN * 1e11 / 2 / 15)
    assert not nothing_to_gain((3, 5), (m + 1,), dtype)
    # Torch's own linears of 16 bits take long with more rows, however small they are.
    assert bool(nothing_to_gain((3, 5), (8, 9), dtype)) == (dtype == torch.float32)
    assert nothing_to_gain((3, 5), (8,), dtype)


def test_gpus_have_no_such_figure() -> None:
    target = sc.Target.parse("sm_90")
    registry = sc.default_registry()
    codegen = registry.get(sc.Codegen, target.device)
    assert codegen.nothing_to_gain((3, 5), (1,), torch.float16) == ""
