"""save and load: one safetensors file, checked before use."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from packing import sparse_
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.storage.save import KEY


class Tied(nn.Module):
    """An embedding that is the head too, a linear in bfloat16, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(24, 32)
        self.inner = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 24, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("turns", torch.randn(32), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.inner(self.tokens(ids)) * self.turns))


def compressed(**options: Any) -> Tied:
    model = Tied()
    sparse_(model.inner)
    sparse_(model.head, sc.NM(2, 4))
    return sc.compress(model, **options)


@pytest.mark.parametrize("options", [{}, {"quantize": "int4[group=32]"}], ids=str)
def test_a_model_made_without_memory_is_filled(options: dict[str, Any], tmp_path: Path) -> None:
    model, path, ids = compressed(**options), tmp_path / "model.safetensors", torch.arange(6)
    sc.save(model, path)
    with torch.device("meta"):
        empty = Tied()
    assert sc.load(path, empty) is empty
    assert torch.equal(empty(ids), model(ids))
    assert empty.head.weight is empty.tokens.weight
    assert isinstance(empty.head.weight, sc.PackedTensor)
    assert not empty.head.weight.requires_grad
    assert empty.inner.bias.requires_grad
    assert int(empty.steps) == 3
    assert empty.state_dict().keys() == Tied().state_dict().keys()


def test_the_state_alone(tmp_path: Path) -> None:
    model, path = compressed(), tmp_path / "model.safetensors"
    sc.save(torch.compile(model, backend="sparse"), path)
    state = sc.load(path)
    assert state.keys() == model.state_dict().keys()
    assert state["head.weight"] is state["tokens.weight"]
    other = Tied()
    other.load_state_dict(state, assign=True)
    assert isinstance(other.head.weight, sc.PackedTensor)
    other.turns = model.turns
    assert torch.equal(other(torch.arange(6)), model(torch.arange(6)))


def test_other_tools_read_it(tmp_path: Path) -> None:
    model, path = compressed(), tmp_path / "model.safetensors"
    sc.save(model, path)
    packed = model.inner.weight.packed
    with safetensors.safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()[KEY])
        assert {"inner.weight::codes", "inner.weight::values", "turns"} < set(file.keys())
        assert torch.equal(file.get_tensor("inner.weight::values"), packed.values["values"])
        assert torch.equal(file.get_tensor("steps"), torch.tensor(3))
    assert facts["tied"] == {"head.weight": "tokens.weight"}
    assert facts["packed"]["inner.weight"]["format"] == "n_m[2:4]/float"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """It asserts that nothing changes on the way, and that all linears are packed."""
    path = Path(__file__).parents[1] / "examples" / "compress_and_save.py"
    runpy.run_path(str(path))["main"]()
    assert "4 of 4 linears packed" in capsys.readouterr().out


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    holder = nn.Module()
    holder.values = nn.Parameter(torch.randn(1 << 20), requires_grad=False)
    sc.save(holder, path)
    before, loaded = _anonymous(), sc.load(path)["values"]
    assert torch.equal(loaded, holder.values)
    assert _anonymous() - before < 1 << 20
    loaded.zero_()
    assert torch.equal(sc.load(path)["values"], holder.values)


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("what was there", encoding="ascii")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        sc.save(compressed(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text(encoding="ascii") == "what was there"


class Scaled(Tensor):
    """A tensor subclass with a meaning of its own."""


def unsavable() -> list[tuple[nn.Module, str]]:
    def holder(tensor: Any) -> nn.Module:
        module = nn.Module()
        module.register_buffer("it", tensor)
        return module

    class Extra(nn.Module):
        def get_extra_state(self) -> int:
            return 1

    clash = compressed()
    clash.register_buffer("x", torch.zeros(1))
    clash._buffers["inner.weight::codes"] = clash._buffers.pop("x")
    clash.inner._buffers["weight::codes"] = torch.zeros(1)
    return [
        (Extra(), "_extra_state is int: only tensors can be saved"),
        (holder(torch.ones(2).as_subclass(Scaled)), "it is a Scaled of torch.float32: make it"),
        (holder(torch.ones(2, dtype=torch.complex128)), "it is a Tensor of torch.complex128"),
        (holder(torch.ones(2, device="meta")), "it is a torch.strided tensor on meta: its values"),
        (holder(torch.eye(2).to_sparse()), "it is a torch.sparse_coo tensor on cpu"),
        (clash, "two tensors would be called inner.weight::codes"),
    ]


@pytest.mark.parametrize("case", range(6))
def test_what_cannot_be_kept_is_refused(case: int, tmp_path: Path) -> None:
    module, message = unsavable()[case]
    with pytest.raises(sc.SparseCompileError, match=message):
        sc.save(module, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
