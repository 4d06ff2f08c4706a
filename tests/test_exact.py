"""Packed.exact: whether packing rounded anything."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.storage.save import KEY
from sparsecompile.storage.tensor_file import TensorFile, write_tensors
from sparsecompile.testing.coding_laws import check_coding
from sparsecompile.weights.expression import Apply, Leaf
from sparsecompile.weights.packing import pack_binding
from sparsecompile.weights.stored import Stored

FORMAT = sc.Format(sc.Dense(), sc.Int4(32))


def on_the_grid(rows: int = 40) -> Tensor:
    """What four bits and a scale for 32 columns hold: every group reaches its largest integer."""
    integers = torch.randint(-7, 8, (rows, 64)).float()
    integers[:, ::32] = 7
    return integers * torch.rand(rows, 1).add(0.5).bfloat16().float()


@pytest.mark.parametrize("name", ["dense/int4[group=32]", "bitmap/int8", "csr/int4[group=32]"])
def test_integers_that_a_weight_was_made_of_are_found_again(name: str) -> None:
    weight = sc.default_registry().format(name).pack(on_the_grid()).unpack()
    packed = sc.default_registry().format(name).pack(weight)
    assert packed.exact
    assert torch.equal(packed.unpack(), weight)
    check_coding(packed)


@pytest.mark.parametrize("row", [0, 39])
def test_one_value_off_the_grid(row: int) -> None:
    weight = on_the_grid()
    weight[row, 5] += 1e-3
    assert not FORMAT.pack(weight).exact


def test_values_are_compared_before_they_are_rounded_to_the_dtype_of_the_weight() -> None:
    """A kernel multiplies with seven times a scale, which bfloat16 does not hold."""
    weight = torch.full((1, 32), 7 * 1.0078125).bfloat16()
    packed = FORMAT.pack(weight)
    assert torch.equal(packed.unpack(), weight)
    assert not packed.exact


def test_floats_are_exact_until_they_are_converted() -> None:
    packed = sc.Format(sc.Bitmap(), sc.Float()).pack(torch.randn(5, 7))
    assert packed.exact
    assert packed.to(torch.float32).exact
    assert not packed.to(torch.bfloat16).exact


@pytest.mark.parametrize("offset", [0.0, 1e-3])
def test_parts_stored_weights_and_files_remember_it(offset: float, tmp_path: Path) -> None:
    weight = on_the_grid()
    weight[3, 5] += offset
    packed = FORMAT.pack(weight)
    assert packed.exact == (offset == 0)
    part = packed.take(torch.arange(8))
    assert part is not None
    assert part.exact == packed.exact
    holder = nn.Module()
    holder.weight = nn.Parameter(sc.PackedTensor(Stored(packed)), requires_grad=False)
    path = tmp_path / "model.safetensors"
    sc.save(holder, path)
    loaded = sc.load(path)["weight"]
    assert isinstance(loaded, sc.PackedTensor)
    assert loaded.packed.exact == packed.exact


@pytest.mark.parametrize(("codec", "exact"), [(sc.Float(), True), (sc.Int8(), False)])
def test_files_that_do_not_say_it(codec: sc.Codec, exact: bool, tmp_path: Path) -> None:
    holder = nn.Module()
    packed = sc.Format(sc.Dense(), codec).pack(torch.randn(4, 8))
    holder.weight = nn.Parameter(sc.PackedTensor(Stored(packed)), requires_grad=False)
    path = tmp_path / "model.safetensors"
    sc.save(holder, path)
    file = TensorFile.open(path)
    facts = json.loads(file.metadata[KEY])
    assert facts["packed"]["weight"].pop("exact") == exact
    write_tensors(path, {n: file.map(n) for n in file.entries}, {KEY: json.dumps(facts)})
    loaded = sc.load(path)["weight"]
    assert isinstance(loaded, sc.PackedTensor)
    assert loaded.packed.exact == exact


@pytest.mark.parametrize(("offset", "said"), [(0.0, "exact"), (1e-3, "rounded")])
def test_compress_says_it(offset: float, said: str, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(64, 40)
    weight = on_the_grid()
    weight[3, 5] += offset
    model.weight = nn.Parameter(weight)
    with caplog.at_level(logging.INFO, "sparsecompile"):
        sc.compress(model, quantize="int4[group=32]")
    assert f"weight: dense/int4[group=32], {said}" in caplog.text


def test_a_weight_that_is_merged_is_exact_where_all_of_its_parts_are() -> None:
    rounded = on_the_grid()
    rounded[3, 5] += 1e-3
    first, second = (sc.PackedTensor(Stored(FORMAT.pack(w))) for w in (on_the_grid(), rounded))
    merged = Apply(torch.cat, ((Leaf(0, "a"), Leaf(1, "b")),))
    assert pack_binding(merged, (first, first), FORMAT).exact
    assert not pack_binding(merged, (first, second), FORMAT).exact
