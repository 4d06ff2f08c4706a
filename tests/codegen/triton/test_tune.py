"""What the tuner measures, remembers and says on GPUs: that of CPUs, on another workbench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fake_gpu import Gpu
from packing import sparse_
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton.aot import specialization
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.codegen.tuning.key import tuning_key
from sparsecompile.errors import BuildError
from sparsecompile.problem import Problem
from sparsecompile.registry import Registry
from sparsecompile.report import NodeReport
from sparsecompile.spec import KernelSpec, Target
from sparsecompile.template import Kernel

H100 = Target.parse("sm_90")
RECORD = "from the tuning record, nothing measured"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return sparse_(nn.Linear(64, 32)).half().requires_grad_(False)


def explain(model: nn.Module, tune: str, rows: int = 4, **options: Any) -> NodeReport:
    torch._dynamo.reset()
    options = {"target": "sm_90", **options}
    (node,) = sc.explain(model, torch.randn(rows, 64).half(), tune=tune, **options).nodes
    return node


def names(tuned: Tuned) -> set[str]:
    return {name for _, measured in tuned.measured for name in measured}


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
    from sparsecompile.codegen.tuning import key

    on_gpu, on_cpu = {"m": 1, "gpu": "H100"}, {"m": 1}
    before = tuning_key(on_gpu), tuning_key(on_cpu)
    monkeypatch.setattr(key, "host_cpu", lambda: "another")
    assert tuning_key(on_gpu) == before[0]
    assert tuning_key(on_cpu) != before[1]
    monkeypatch.setattr(key, "sources_digest", lambda: "another")
    assert tuning_key(on_gpu) != before[0]


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


SPEC = KernelSpec(sc.default_registry().format("n_m[2:4]"), torch.float16)


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


def test_a_library_wins_and_serves_every_m(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonWorkbench, "faults", lambda *_: {})
    tuned.seconds = lambda name, rows: {"cusparselt": 1.0, "tiles": 2.0}.get(name.split()[0], 3.0)
    node = explain(model, "fast")
    assert node.kernel is not None
    assert node.kernel.ranges == ("any m: cusparselt alg_id=0",)
    assert (node.kernel.template, node.kernel.source) == ("cusparselt", "")
    # Padded to multiples of 16; 9/16 of it.
    assert node.packed_bytes == 32 * 64 * 2 * 9 // 16
    # Every algorithm reads the one layout: each m takes the one that is fastest there.
    tuned.seconds = lambda name, rows: {
        "cusparselt alg_id=3": 0.5 if rows < 8 else 0.9,
        "cusparselt alg_id=2": 0.6,
    }.get(name, 2.0)
    tuned.record().clear()
    x = torch.randn(4, 64).half()
    torch._dynamo.mark_dynamic(x, 0)
    (node,) = sc.explain(model, x, tune="full", target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.ranges == ("m <= 7: cusparselt alg_id=3", "any m: cusparselt alg_id=2")
    assert {t.label for t in node.trials if t.chosen} == {"cusparselt"}


def test_dense_serves_the_rows_at_which_a_library_is_slower(
    model: nn.Module, tuned: Tuned, gpu: Gpu
) -> None:
    tuned.seconds = lambda name, rows: {
        "cusparselt": 0.5 if rows > 64 else 4.0,
        "tiles": 1.9,
    }.get(name.split()[0], 2.0)
    x = torch.randn(4, 64).half()
    torch._dynamo.mark_dynamic(x, 0)
    (node,) = sc.explain(model, x, tune="fast", target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.ranges == ("m <= 64: dense", "any m: cusparselt alg_id=0")


def test_without_triton_the_model_stays_dense_and_says_so(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise BuildError(specialization.MISSING)

    monkeypatch.setattr(specialization, "triton_version", missing)
    with pytest.warns(RuntimeWarning, match="leaves the model dense: Triton is not installed"):
        assert not explain(model, "full").packed
    with pytest.raises(BuildError, match="pip install triton"):
        explain(model, "full", strict=True)


def test_kernels_for_any_gpu_can_be_built_from_libraries(gpu: Gpu) -> None:
    registry: Registry = sc.default_registry()
    from sparsecompile.codegen.triton.lower import TritonCodegen

    kernels: list[Kernel] = []
    for extern in registry.all(sc.PackedExtern):
        schedule = extern.schedules(SPEC, H100)[0]
        kernels.append(TritonCodegen().build(SPEC, extern, schedule, H100, registry))
    assert {k.layout for k in kernels} == {"cutlass", "cusparselt"}
    assert len({k.key for k in kernels}) == 2
    assert all(k.sources == () for k in kernels)
