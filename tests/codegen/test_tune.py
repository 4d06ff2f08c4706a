"""What the tuner measures, remembers and says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from packing import Packing, close, sparse_
from torch import nn
from tuned import MACHINE, Tuned, no_builds

import sparsecompile as sc
from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.workbench import CppWorkbench
from sparsecompile.codegen.tuning import timings
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord, tuning_key
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.timings import Timings
from sparsecompile.codegen.tuning.tuner import Tuner
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import ROWS, DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.linear.operator import Linear
from sparsecompile.registry import Registry
from sparsecompile.report.facts import NodeReport
from sparsecompile.report.model import Report

FROM_RECORD = "from the tuning record, nothing measured"


@pytest.fixture(scope="module")
def model() -> nn.Linear:
    return sparse_(nn.Linear(64, 32)).requires_grad_(False)


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


def test_full_finds_where_the_next_range_begins(model: nn.Linear, tuned: Tuned) -> None:
    def seconds(name: str, rows: int) -> float:
        return {"dense": 3.0, "batch": 2.0 if rows <= 12 else 4.0}.get(name.split("_")[-1], 2.5)

    tuned.seconds = seconds
    backend = Packing(tune="full")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (2, 12, 13, 16, 64):
            x = torch.randn(rows, 64)
            close(fast(x), model(x))
    (node,) = backend.compiler.report.nodes
    assert node.kernel is not None
    assert [part.partition(":")[0] for part in node.kernel.ranges][-2:] == ["m <= 12", "any m"]
    assert node.kernel.ranges[-1] == "any m: dense"
    assert [rows for rows in tuned.rows if rows not in ROWS] == [12, 14, 13]
    assert {t.rows for t in node.trials if t.chosen} == {*ROWS, 12}
    tuned.measured.clear()
    torch._dynamo.reset()
    again = explain_any(model, "fast")
    assert again.kernel is not None
    assert again.kernel.ranges == node.kernel.ranges
    assert tuned.measured == []


def explain_report(model: nn.Module, tune: str) -> Report:
    """For any m."""
    backend = Packing(tune=tune)
    with torch.no_grad():
        torch.compile(model, backend=backend, dynamic=True)(torch.randn(3, 64))
    return backend.compiler.report


def explain_any(model: nn.Module, tune: str) -> NodeReport:
    """For any m."""
    (node,) = explain_report(model, tune).nodes
    return node


def test_fast_moves_no_end_of_a_range(model: nn.Linear, tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > 12)
    kernel = explain_any(model, "fast").kernel
    assert kernel is not None
    assert kernel.ranges[-2].startswith("m <= 8: ")
    assert set(tuned.rows) == {*ROWS, 128}


def test_a_function_is_never_given_more_rows_than_it_serves(model: nn.Linear, tuned: Tuned) -> None:
    def decode_wins(name: str, rows: int) -> float:
        return 1.0 if name.endswith("decode") else 2.0 if name != "dense" else 9.0

    tuned.seconds = decode_wins
    kernel = explain_any(model, "full").kernel
    assert kernel is not None
    assert [part.partition(" of ")[0] for part in kernel.ranges] == [
        "m <= 8: sc_linear_decode",
        "any m: sc_linear_batch",
    ]


def test_not_even_where_the_record_says_that_it_is_faster(model: nn.Linear, tuned: Tuned) -> None:
    def decode_wins(name: str, rows: int) -> float:
        return 1.0 if name.endswith("decode") else 2.0 if name != "dense" else 9.0

    tuned.seconds = decode_wins
    explain_any(model, "full")
    (entry,) = (e for e in tuned.record().entries() if e["facts"]["m"] == 8)
    facts = {**entry["facts"], "m": 12}
    timings = {name: Timing(**timing) for name, timing in entry["timings"].items()}
    tuned.record().add(tuning_key(facts), facts, timings)
    kernel = explain_any(model, "full").kernel
    assert kernel is not None
    assert kernel.ranges[0].startswith("m <= 8: sc_linear_decode")


def test_layers_of_one_shape_are_measured_once(tuned: Tuned) -> None:
    layers = (sparse_(nn.Linear(64, 64)) for _ in range(3))
    model = nn.Sequential(*layers).requires_grad_(False)
    report = sc.explain(model, torch.randn(4, 64), tune="fast")
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
    report = explain_report(model, "fast")
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
    assert decision.reason == "measured"
    assert measured.measured_now == len(decision.trials)
    assert {t.rows for t in decision.trials} == {1, 64, 128}
    assert all(t.seconds > 0 and t.nbytes > 0 for t in decision.trials)
    assert sum(t.chosen for t in decision.trials) == 2
    assert lossless or all(not part.dense for part in decision.ranges)
    assert bool(decision.variants) == any(not part.dense for part in decision.ranges)
