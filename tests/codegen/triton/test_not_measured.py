"""What cannot be measured on a GPU, or is not worth it, is left out with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fake_gpu import H100, SPEC, Gpu, explain, names
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton import version, workbench
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.errors import BuildError
from sparsecompile.kernels.problem import Problem


def test_what_is_not_worth_a_measurement_is_left_out_with_the_reason(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def faults(bench: object, problem: Problem, functions: Sequence[Any]) -> dict[str, str]:
        asked.extend(f.name for f in functions)
        wide = (f.name for f in functions if "many_m=128" in f.name and f.symbol == "many")
        return dict.fromkeys(wide, "linear on sm_90: 24 spills")

    monkeypatch.setattr(TritonWorkbench, "faults", faults)
    node = explain(model, "full")
    dropped = dict(node.dropped)
    assert dropped
    assert set(dropped.values()) == {"linear on sm_90: 24 spills"}
    assert not dropped.keys() & names(tuned)
    # Other functions of those schedules are measured, and defaults are not looked at.
    assert any("many_m=128" in name and name.endswith("row") for name in names(tuned))
    (default,) = sc.default_registry().get(sc.Template, "tiles").schedules(SPEC, H100)
    assert not any(str(default) in name for name in asked)
    asked.clear()
    tuned.measured.clear()
    again = explain(model, "full")
    assert (asked, tuned.measured) == ([], [])
    assert again.dropped == node.dropped


def test_a_candidate_that_does_not_run_is_left_out_with_the_reason(
    model: nn.Module, tuned: Tuned, gpu: Gpu
) -> None:
    tuned.broken["cusparselt alg_id=0"] = "m=1: CUSPARSE_STATUS_NOT_SUPPORTED"
    node = explain(model, "fast")
    assert node.dropped == (("cusparselt alg_id=0", "m=1: CUSPARSE_STATUS_NOT_SUPPORTED"),)
    assert node.kernel is not None
    assert node.kernel.template == "tiles"
    tuned.measured.clear()
    tuned.broken.clear()
    assert explain(model, "fast").dropped == node.dropped
    assert tuned.measured == []


def test_where_nothing_runs_dense_does(model: nn.Module, tuned: Tuned, gpu: Gpu) -> None:
    class Everything(dict[str, str]):
        def __contains__(self, name: object) -> bool:
            return True

        def __getitem__(self, name: str) -> str:
            return "m=1: out of resources"

    tuned.broken = Everything()
    node = explain(model, "fast")
    assert not node.packed
    assert node.reason.startswith("could not be measured (")
    assert node.reason.endswith("m=1: out of resources)")
    # The dense linear would compute something else than quantised weights.
    node = explain(model, "fast", quantize="int8-weight-only", formats=[])
    assert node.packed
    assert node.chosen_by.startswith("could not be measured (tiles ")
    assert "; rooflines of H100" in node.chosen_by


def test_where_not_even_dense_can_be_measured_rooflines_decide(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contestants(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of\nmemory")

    monkeypatch.setattr(Contest, "contestants", contestants)
    node = explain(model, "fast")
    assert node.packed
    assert node.chosen_by.startswith(
        "could not be measured (CUDA out of memory); rooflines of H100 SXM: m=4 "
    )
    assert tuned.record().entries() == []


def test_without_triton_the_model_stays_dense_and_says_so(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise BuildError(version.MISSING)

    monkeypatch.setattr(workbench, "triton_version", missing)
    with pytest.warns(RuntimeWarning, match="leaves the model dense: Triton is not installed"):
        assert not explain(model, "full").packed
    with pytest.raises(BuildError, match="pip install triton"):
        explain(model, "full", strict=True)
