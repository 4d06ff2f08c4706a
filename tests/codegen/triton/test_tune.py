"""What the tuner measures, remembers and says on GPUs: that of CPUs, on another workbench."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import H100, Gpu, explain, names
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.measurements import tuning_key

RECORD = "from the tuning record, nothing measured"


def test_a_warm_start_measures_nothing_and_says_so(
    model: nn.Module, tuned: Tuned, gpu: Gpu
) -> None:
    cold = explain(model, "fast")
    assert cold.chosen_by == "measured"
    assert sorted(tuned.rows) == [1, 4, 128]
    assert {t.rows for t in cold.trials} == {1, 4, 128}
    assert all(t.cold and t.nbytes > 0 for t in cold.trials)
    tuned.measured.clear()
    for mode in ("fast", "cached"):
        warm = explain(model, mode)
        assert tuned.measured == []
        assert warm.chosen_by == RECORD
        assert (warm.kernel.ranges, warm.trials) == (cold.kernel.ranges, cold.trials)  # type: ignore[union-attr]


def test_fast_measures_defaults_and_full_the_search(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonWorkbench, "faults", lambda *_: {})
    explain(model, "fast")
    fast, tuned.measured = names(tuned), []
    assert {name.split()[0] for name in fast} == {"dense", "tiles", "cusparselt"}
    assert len({name.rsplit(" ", 1)[0] for name in fast if name.startswith("tiles")}) == 1
    explain(model, "full")
    full = names(tuned)
    assert fast < full
    assert {"cusparselt alg_id=0", "cusparselt alg_id=1"} <= full
    schedules = {name.rsplit(" ", 1)[0] for name in full if name.startswith("tiles")}
    assert len(schedules) > 5
    tuned.measured.clear()
    assert explain(model, "fast").chosen_by == RECORD


def test_a_schedule_of_the_search_serves_where_it_is_faster(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonWorkbench, "faults", lambda *_: {})
    tuned.seconds = lambda name, rows: (
        {"few": 0.5, "many": 0.7}.get(name.split()[-1], 2.0)
        / (1 + ("few_n=32" in name) * (rows <= 16) + ("many_n=256" in name) * (rows > 16))
    )
    x = torch.randn(4, 64).half()
    torch._dynamo.mark_dynamic(x, 0)
    report = sc.explain(model, x, target="sm_90", tune="full")
    (node,) = report.nodes
    assert node.kernel is not None
    ranges = [part.partition(":")[2].split()[0] for part in node.kernel.ranges]
    assert ranges == ["few", "many"]
    # Two modules, of which the kernel takes one function each.
    sources = {part.split()[-1] for part in node.kernel.ranges}
    assert len(sources) == 2
    assert "few_n=32" in report.sources[node.kernel.ranges[0].split()[-1]]
    assert "many_n=256" in report.sources[node.kernel.ranges[1].split()[-1]]


def test_off_and_cached_take_the_word_of_rooflines(
    model: nn.Module, tuned: Tuned, gpu: Gpu
) -> None:
    off, cached = explain(model, "off"), explain(model, "cached")
    assert off.chosen_by.startswith("not measured (tune is off); rooflines of H100 SXM: m=4 ")
    assert cached.chosen_by.startswith(
        "not in the tuning record (tune is cached); rooflines of H100 SXM: m=4 "
    )
    assert (off.trials, cached.trials, tuned.measured) == ((), (), [])
    assert off.packed
    assert cached.packed


@pytest.mark.parametrize("tune", ["off", "cached", "fast", "full"])
@pytest.mark.parametrize("there", ["nothing", "another"])
def test_nothing_is_measured_for_a_gpu_that_is_not_at_hand(
    model: nn.Module, tuned: Tuned, monkeypatch: pytest.MonkeyPatch, tune: str, there: str
) -> None:
    if there == "another":
        Gpu(monkeypatch, 8)
    else:
        monkeypatch.setattr(Gpu, "is_available", lambda gpu: False)
        Gpu(monkeypatch)
    node = explain(model, tune)
    assert node.packed
    assert node.chosen_by.startswith("not measured; rooflines of H100 SXM: m=4 ")
    assert tuned.measured == []


def test_a_gpu_that_nothing_is_known_of_is_not_at_hand(gpu: Gpu) -> None:
    registry = sc.default_registry()
    assert TritonWorkbench(H100, registry).device == torch.device("cuda", 0)
    gpu.major = 7
    assert TritonWorkbench(H100, registry).device is None


def test_timings_are_of_one_gpu_capability_and_triton(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain(model, "fast")
    (facts,) = (e["facts"] for e in tuned.record().entries() if e["facts"]["m"] == 4)
    assert len(facts.pop("candidates")) == 20
    assert facts == {
        "spec": "linear n_m[2:4]/float float16",
        "n": 32,
        "k": 64,
        "density": 0.5,
        "m": 4,
        "target": "cuda sm_90",
        "gpu": "NVIDIA H100",
        "capability": "9.0",
        "triton": "3.9.0",
        "torch": torch.__version__,
    }
    for name, other in (("name", "NVIDIA H200"), ("minor", 1), ("triton", "3.10.0")):
        before = getattr(gpu, name)
        setattr(gpu, name, other)
        tuned.measured.clear()
        explain(model, "fast")
        assert sorted(tuned.rows) == [1, 4, 128]
        setattr(gpu, name, before)
    tuned.measured.clear()
    explain(model, "fast")
    assert tuned.measured == []


def test_the_cpu_is_no_fact_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecompile.codegen.tuning import measurements

    on_gpu, on_cpu = {"m": 1, "gpu": "H100"}, {"m": 1}
    before = tuning_key(on_gpu), tuning_key(on_cpu)
    monkeypatch.setattr(measurements, "host_cpu", lambda: "another")
    assert tuning_key(on_gpu) == before[0]
    assert tuning_key(on_cpu) != before[1]
    monkeypatch.setattr(measurements, "sources_digest", lambda: "another")
    assert tuning_key(on_gpu) != before[0]
