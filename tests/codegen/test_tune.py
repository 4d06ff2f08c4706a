"""What the tuner measures, remembers and says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from packing import Packing, sparse_
from torch import nn
from tuned import MACHINE, Tuned, no_builds

import sparsecompile as sc
from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.workbench import CppWorkbench
from sparsecompile.codegen.tuning import timings
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.timings import Timings
from sparsecompile.codegen.tuning.tuner import Tuner
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.linear.operator import Linear
from sparsecompile.registry import Registry
from sparsecompile.report.facts import NodeReport

FROM_RECORD = "from the tuning record, nothing measured"


def explain(model: nn.Module, tune: str, rows: int = 4, **options: object) -> NodeReport:
    # Or Dynamo would make the m of a second call any m.
    torch._dynamo.reset()
    (node,) = sc.explain(model, torch.randn(rows, 64), tune=tune, **options).nodes
    return node


def test_a_warm_start_measures_nothing_and_says_so(model: nn.Linear, tuned: Tuned) -> None:
    cold = explain(model, "fast")
    assert tuned.rows == [4]
    tuned.measured.clear()
    for mode in ("fast", "cached"):
        warm = explain(model, mode)
        assert tuned.measured == []
        assert warm.chosen_by == FROM_RECORD
        assert warm.kernel is not None
        assert cold.kernel is not None
        assert (warm.kernel.ranges, warm.trials) == (cold.kernel.ranges, cold.trials)


def test_what_was_measured_on_a_busy_machine_is_measured_again(
    model: nn.Linear, tuned: Tuned
) -> None:
    busy = "; the machine was busy, so up to 3 processes measure anew"
    tuned.disturbed = True
    for chosen_by in ("measured" + busy, FROM_RECORD + busy):
        assert explain(model, "fast").chosen_by == chosen_by
    assert explain(model, "cached").chosen_by == FROM_RECORD + busy
    assert tuned.rows == [4]
    tuned.another_process()
    assert explain(model, "cached").chosen_by == FROM_RECORD + busy
    tuned.disturbed = False
    assert explain(model, "fast").chosen_by == "measured"
    tuned.another_process()
    assert explain(model, "fast").chosen_by == FROM_RECORD
    assert tuned.rows == [4, 4]


def test_a_machine_that_is_always_busy_is_measured_three_times(
    model: nn.Linear, tuned: Tuned
) -> None:
    tuned.disturbed = True
    for _ in range(5):
        explain(model, "fast")
        tuned.another_process()
    assert tuned.rows == [4, 4, 4]


def test_a_record_that_is_only_read_is_not_in_doubt(
    model: nn.Linear, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned.disturbed = True
    explain(model, "fast")
    tuned.another_process()
    monkeypatch.setattr(TuningRecord, "is_writable", False)
    explain(model, "fast")
    assert tuned.rows == [4]


def test_another_m_measures_that_m_only(model: nn.Linear, tuned: Tuned) -> None:
    explain(model, "fast")
    tuned.measured.clear()
    assert explain(model, "fast", rows=7).chosen_by == "measured"
    assert tuned.rows == [7]


def test_cached_measures_nothing_and_takes_the_word_of_the_cost_model(
    model: nn.Linear, tuned: Tuned
) -> None:
    node = explain(model, "cached")
    assert tuned.measured == []
    assert node.packed
    assert node.chosen_by == "not in the tuning record (tune is cached)"
    assert node.trials == ()
    explain(model, "fast")
    tuned.measured.clear()
    other = explain(model, "cached", rows=7)
    assert other.chosen_by == "not in the tuning record (tune is cached)"
    assert tuned.measured == []
    assert not tuned.record().timings("")


def test_off_reads_and_measures_nothing(model: nn.Linear, tuned: Tuned) -> None:
    tuned.dense_wins()
    explain(model, "fast")
    tuned.measured.clear()
    node = explain(model, "off")
    assert node.packed
    assert node.chosen_by == "not measured (tune is off)"
    assert (node.trials, tuned.measured) == ((), [])


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(sc.OptionError, match="'tune' must be one of off, cached, fast, full, not"):
        sc.Compiler(tune="slow")


def test_the_default_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, mode in (("full", "full"), ("", "fast")):
        monkeypatch.setenv("SPARSECOMPILE_TUNE", value)
        assert sc.Compiler().options.tune == mode
    monkeypatch.setenv("SPARSECOMPILE_TUNE", "never")
    with pytest.raises(sc.OptionError, match="not 'never'"):
        sc.Compiler()


def test_full_measures_what_fast_leaves_out(model: nn.Linear, tuned: Tuned) -> None:
    explain(model, "fast")
    fast = set(tuned.measured[0][1])
    tuned.measured.clear()
    node = explain(model, "full")
    full = set(tuned.measured[0][1])
    assert fast < full
    assert node.chosen_by == "measured"
    tuned.measured.clear()
    # What is known by now serves the other modes too.
    for mode in ("fast", "cached", "full"):
        again = explain(model, mode)
        assert tuned.measured == []
        assert again.chosen_by == FROM_RECORD
        assert {t.candidate for t in again.trials} == {t.candidate for t in node.trials}


def test_layers_of_one_shape_are_measured_once(tuned: Tuned) -> None:
    layers = [sparse_(nn.Linear(64, 64)) for _ in range(3)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    report = sc.explain(model.requires_grad_(False), torch.randn(4, 64), tune="fast")
    assert tuned.rows == [4]
    assert len(report.nodes) == 3


def test_another_epilogue_is_not_measured(model: nn.Linear, tuned: Tuned) -> None:
    explain(model, "fast")
    tuned.measured.clear()
    assert explain(nn.Sequential(model, nn.ReLU()), "fast").epilogue == ("relu",)
    assert tuned.measured == []


def test_numbers_of_a_trial(
    model: nn.Linear, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CppCodegen, "read_bandwidth", lambda self: 1024.0)
    monkeypatch.setattr(CppWorkbench, "rates", lambda self: {"float32": 512.0})
    tuned.seconds = lambda name, rows: 8.0 + (name == "dense")
    backend = Packing(tune="fast")
    with torch.no_grad():
        torch.compile(model, backend=backend, dynamic=True)(torch.randn(3, 64))
    report = backend.compiler.report
    assert report.read_bandwidth == 1024.0
    trials = {(t.rows, t.label): t for t in report.nodes[0].trials}
    dense = trials[4, "dense"]
    assert dense.nbytes == 4 * (32 * 64 + 4 * (32 + 64))
    assert dense.bandwidth == pytest.approx(dense.nbytes / 9.0)
    assert report.share(dense) == pytest.approx(dense.bandwidth / 1024.0)
    assert dense.peak == pytest.approx(2 * 4 * 32 * 64 / 9.0 / 512.0)
    assert dense.cold
    assert not trials[128, "dense"].cold
    assert report.share(trials[128, "dense"]) is None
    assert {label.split()[0] for _, label in trials} == {"dense", "strips"}


def test_the_bandwidth_is_asked_for_only_where_something_was_measured(
    model: nn.Linear, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CppCodegen, "read_bandwidth", lambda self: 1.0)
    assert sc.explain(model, torch.randn(4, 64), tune="off").read_bandwidth is None


def test_the_bandwidth_of_a_machine_that_was_never_measured(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_known", {})
    assert CppCodegen().read_bandwidth() is None
    monkeypatch.setattr(machine, "_known", {torch.get_num_threads(): MACHINE})
    assert CppCodegen().read_bandwidth() == MACHINE.read_bandwidth
    monkeypatch.setattr(machine, "_known", {})
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert CppCodegen().read_bandwidth() is None


def test_recorded_candidates_that_are_gone_are_passed_over(
    model: nn.Linear, tuned: Tuned, caplog: pytest.LogCaptureFixture
) -> None:
    explain(model, "fast")
    for entry in tuned.record().entries():
        tuned.record().add(entry["key"], entry["facts"], {"gone decode": Timing(1e-9, 0.0)})
    with caplog.at_level(logging.INFO, "sparsecompile"):
        node = explain(model, "fast")
    assert node.packed
    assert "gone" not in {t.label.split()[0] for t in node.trials}


def test_a_record_that_cannot_be_read_leaves_the_model_dense_with_a_warning(
    model: nn.Linear, tuned: Tuned
) -> None:
    tuned.record().path.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="sparsecompile leaves the model dense: cannot read"):
        assert not explain(model, "fast").packed
    with pytest.raises(sc.CacheError, match="cannot read"):
        sc.explain(model, torch.randn(4, 64), tune="fast", strict=True)


@pytest.mark.parametrize("name", ["n_m[2:4]", "n_m[2:4]/int8"])
def test_real_measurements(
    name: str,
    shared_cache: Path,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is faster here: everything that may win is measured, and something is chosen."""
    monkeypatch.setattr(timings, "TuningRecord", lambda: TuningRecord(Cache(tmp_path)))
    spec = KernelSpec(registry.format(name), torch.float32)
    lossless = spec.format.codec.lossless
    dense = DenseUse.ANYWHERE if lossless else DenseUse.NEVER
    problem = Problem(spec, (32, 64), (1, 64), True, dense, "fast", 0.5)
    weight = sparse_(nn.Linear(64, 32)).weight.detach()
    codegen, target = CppCodegen(), Target.host()
    candidates = Candidates(
        Linear(),
        problem,
        codegen.variants(spec, target, registry),
        codegen.searched(spec, target, registry),
        lambda: Contents(spec.format.pack(weight)),
        codegen.workbench(target, registry),
    )
    measured = Timings(candidates, codegen.builder(target, registry), no_builds)
    decision = Tuner(candidates, measured).decide()
    assert decision.reason.startswith("measured")
    assert measured.measured_now == len(decision.trials)
    assert {t.rows for t in decision.trials} == {1, 64, 128}
    assert all(t.seconds > 0 and t.nbytes > 0 for t in decision.trials)
    assert sum(t.chosen for t in decision.trials) == 2
    assert lossless or all(not part.dense for part in decision.ranges)
    assert bool(decision.variants) == any(not part.dense for part in decision.ranges)
