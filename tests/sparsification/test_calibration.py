"""Calibration: block by block or at once, what is kept where, and runs that were killed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparsification.small import ids, rows, stack, transformer
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.sparsification.calibration import Calibration, at_rest
from sparsecompile.sparsification.hidden import Hidden
from sparsecompile.sparsification.method import Method, Problem
from sparsecompile.sparsification.methods.magnitude import Magnitude
from sparsecompile.sparsification.moments import Moments
from sparsecompile.sparsification.progress import Progress


def stages(model: nn.Module, batches: Any, memory: int = 2**30) -> list[dict[str, Moments]]:
    """Moments of all linears of a model that nothing is done to."""
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    with torch.no_grad(), at_rest(model), Progress(shown=False) as bar:
        calibration = Calibration(model, batches, memory, bar)
        return [stage.moments() for stage in calibration.stages(linears)]


def exact(model: nn.Module, batches: Any) -> dict[str, Tensor]:
    """Means of `x^T x` in float64, looked at in whole runs of the model."""
    seen: dict[str, list[Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        def call(module: nn.Module, args: tuple[Tensor]) -> None:
            seen.setdefault(name, []).append(args[0].flatten(0, -2).double())

        return call

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(hook(name))
    for batch in batches:
        model(**batch) if isinstance(batch, dict) else model(batch)
    found = {name: torch.cat(parts) for name, parts in seen.items()}
    return {name: x.t() @ x / len(x) for name, x in found.items()}


def padded() -> list[dict[str, Tensor]]:
    """Batches with padding at the end of one row."""
    batches = [{"input_ids": x, "attention_mask": torch.ones_like(x)} for x in ids()]
    batches[1]["attention_mask"][0, -5:] = 0
    return batches


MODELS: dict[str, tuple[Callable[[], Any], Any, int]] = {
    "stack": (stack, rows, 3),
    "llama": (lambda: transformer("LlamaForCausalLM", "LlamaConfig"), padded, 4),
    "bert": (lambda: transformer("BertForMaskedLM", "BertConfig"), padded, 4),
    "opt": (
        lambda: transformer("OPTForCausalLM", "OPTConfig", ffn_dim=64, word_embed_proj_dim=32),
        padded,
        4,
    ),
    # Its layers are not called alike: some see a window.
    "gemma3": (
        lambda: transformer(
            "Gemma3ForCausalLM",
            "Gemma3TextConfig",
            head_dim=8,
            num_key_value_heads=2,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        padded,
        1,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_whole_runs(name: str) -> None:
    make, batches, count = MODELS[name]
    model, given = make(), batches()
    found = stages(model, given)
    assert len(found) == count
    expected = exact(model, given)
    moments = {name: m for stage in found for name, m in stage.items()}
    assert moments.keys() == expected.keys()
    for linear, second in expected.items():
        torch.testing.assert_close(moments[linear].second, second, rtol=1e-5, atol=1e-7)


def test_linears_that_read_the_same_share_moments() -> None:
    first, *_ = stages(transformer("LlamaForCausalLM", "LlamaConfig"), ids())
    short = {name.rpartition(".")[2]: moments for name, moments in first.items()}
    assert short["q_proj"] is short["k_proj"] is short["v_proj"]
    assert short["gate_proj"] is short["up_proj"]
    assert len(set(map(id, short.values()))) == 4


def test_moments_of_what_is_wider_than_a_product() -> None:
    x = torch.randn(40, 600)
    moments = Moments(600, x.device)
    moments.add(x.view(2, 20, 600))
    torch.testing.assert_close(moments.second, x.double().t() @ x.double() / 40, rtol=0, atol=1e-5)
    torch.testing.assert_close(moments.mean, x.double().mean(0))


def test_linears_that_nothing_reaches_are_sparsified_by_magnitude() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(32, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Idle()
    expected = torch.where(sc.NM(2, 4).prune(model.idle.weight), model.idle.weight, 0.0)
    sc.sparsify(model, "2:4", method="wanda", calibration=rows())
    assert torch.equal(model.idle.weight, expected)


class Halving(Method):
    """Halves what it keeps, and counts."""

    name = "halving"

    def __init__(self) -> None:
        self.solved = 0

    def __repr__(self) -> str:
        return "Halving()"

    def solve(self, problem: Problem) -> Tensor:
        self.solved += 1
        return Magnitude().solve(problem) / 2


def test_a_block_reads_what_the_sparse_ones_before_it_give() -> None:
    model, dense = stack(), stack()
    report = sc.sparsify(model, "2:4", method="wanda", calibration=rows())
    with torch.no_grad():
        read = model[:4](torch.cat(rows()))
        weight = dense[4].weight
        off = (read @ (model[4].weight - weight).t()).norm() / (read @ weight.t()).norm()
    assert report.weights[2].error == pytest.approx(float(off), rel=1e-4)


def test_modules_that_write_to_what_they_read() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    blocks = (nn.Sequential(Doubling(), nn.Linear(32, 32)) for _ in range(3))
    model = nn.Sequential(nn.Linear(32, 32), *blocks)
    found = {name: m for stage in stages(model, rows()) for name, m in stage.items()}
    with torch.no_grad():
        expected = exact(model, rows())
    for name, second in expected.items():
        torch.testing.assert_close(found[name].second, second, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_in_memory_is_on_disk() -> None:
    results = []
    for memory in (2**30, 48 * 64 * 4 * 2, 0):
        model = stack()
        sc.sparsify(model, "2:4", calibration=rows(), memory=memory)
        results.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, results[0], results[1]))
    assert all(map(torch.equal, results[0], results[2]))
    with Hidden(100) as hidden:
        for value in range(4):
            hidden.append(torch.full((10,), float(value), dtype=torch.bfloat16))
        assert (len(hidden), hidden.files) == (4, 0)
        hidden.append(torch.full((11,), 4.0))
        hidden[0] = torch.full((12,), 5.0)
        assert hidden.files == 2
        assert [int(hidden[i][-1]) for i in range(5)] == [5, 1, 2, 3, 4]
        folder = Path(hidden._folder.name)  # type: ignore[union-attr]
        assert len(list(folder.iterdir())) == 2
    assert not folder.exists()


def test_a_run_that_was_killed_comes_to_the_same_bits(tmp_path: Path) -> None:
    class Killed(Exception):  # noqa: N818
        pass

    class Kills(Halving):
        def solve(self, problem: Problem) -> Tensor:
            if self.solved == 2:
                raise Killed
            return super().solve(problem)

    whole = stack()
    complete = sc.sparsify(whole, "2:4", method=Halving(), calibration=rows())
    with pytest.raises(Killed):
        sc.sparsify(stack(), "2:4", method=Kills(), calibration=rows(), folder=tmp_path)
    again, method = stack(), Halving()
    report = sc.sparsify(again, "2:4", method=method, calibration=rows(), folder=tmp_path)
    assert method.solved == 1
    assert report.weights == complete.weights
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


def test_results_do_not_change_from_run_to_run() -> None:
    models = [stack(), stack()]
    for model in models:
        sc.sparsify(model, "unstructured(0.5)", calibration=iter(rows()), correct_bias=True)
    assert all(map(torch.equal, *(model.parameters() for model in models)))


@pytest.mark.parametrize("other", ["pattern", "method", "calibration", "model"])
def test_a_folder_of_another_run_is_refused(other: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"pattern": "2:4", "calibration": rows(), "method": "wanda"}
    sc.sparsify(stack(), **given, folder=tmp_path)
    model = stack()
    given |= {
        "pattern": {"pattern": "4:8"},
        "method": {"method": Magnitude()},
        "calibration": {"calibration": rows(3)},
        "model": {},
    }[other]
    if other == "model":
        with torch.no_grad():
            model[2].weight[0, 0] += 1
    before = copy.deepcopy(model)
    with pytest.raises(sc.OptionError, match="has a run with another model, other patterns") as e:
        sc.sparsify(model, **given, folder=tmp_path)
    assert e.value.option == "folder"
    assert all(map(torch.equal, model.parameters(), before.parameters()))


def test_models_are_left_as_they_were() -> None:
    model = transformer("LlamaForCausalLM", "LlamaConfig", use_cache=True)
    model.train()
    model.model.layers[1].eval()
    sc.sparsify(model, "2:4", calibration=ids(1))
    assert model.config.use_cache
    assert model.training
    assert not model.model.layers[1].training
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_progress_ends_where_it_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Progress] = []

    class Kept(Progress):
        def __init__(self, shown: bool) -> None:
            super().__init__(shown)
            bars.append(self)

    monkeypatch.setattr("sparsecompile.sparsification.sparsify.Progress", Kept)
    sc.sparsify(transformer("BertModel", "BertConfig"), "2:4", calibration=ids())
    sc.sparsify(stack(), "2:4", calibration=rows())
    for bar in bars:
        (task,) = bar._bar.tasks
        assert task.completed == task.total
        assert task.completed > 6
