"""save and load: one safetensors file, checked before use."""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import sparse_
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.saving import KEY
from sparsecompile.stored import Stored
from sparsecompile.tensor_file import TensorFile, write_tensors


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


def rewritten(
    path: Path,
    change: Callable[[dict[str, Any]], object] = lambda facts: None,
    **tensors: Tensor | None,
) -> Path:
    """The file with other facts and tensors; None takes a tensor away."""
    file = TensorFile.open(path)
    facts = json.loads(file.metadata[KEY])
    facts = change(facts) or facts
    kept = {name: file.map(name) for name in file.entries}
    kept |= {name.replace("__", "::"): t for name, t in tensors.items()}
    there = {name: t for name, t in kept.items() if t is not None}
    write_tensors(path, there, {KEY: facts if isinstance(facts, str) else json.dumps(facts)})
    return path


def change_weight(**facts: Any) -> Callable[[dict[str, Any]], object]:
    return lambda given: given["packed"]["weight"].update(facts)


CODES = torch.zeros(16, 4, dtype=torch.uint8)
TAMPERED: list[tuple[str, str, Callable[[Path], object]]] = [
    ("", "says nothing about packed weights", lambda p: rewritten(p, lambda f: "{")),
    ("", "version is 2, known is 1: update", lambda p: rewritten(p, lambda f: f.update(version=2))),
    ("", "version is None, known is 1", lambda p: rewritten(p, lambda f: "[]")),
    ("", "'tied' in its metadata is 3", lambda p: rewritten(p, lambda f: f.update(tied=3))),
    ("", "calls a tensor 3", lambda p: rewritten(p, lambda f: f.update(tied={"a": 3}))),
    ("a", "is tied to b, which", lambda p: rewritten(p, lambda f: f.update(tied={"a": "b"}))),
    ("a", "is not there", lambda p: rewritten(p, lambda f: f.update(buffers=["a"]))),
    (
        "weight",
        r"has shape \[16\] and 256",
        lambda p: rewritten(p, change_weight(shape=[16])),
    ),
    ("weight", "and -1 slots", lambda p: rewritten(p, change_weight(slots=-1))),
    ("weight", "has dtype 'I8'", lambda p: rewritten(p, change_weight(dtype="I8"))),
    ("weight", "no structure is called 'n'", lambda p: rewritten(p, change_weight(format="n"))),
    ("weight::codes", "is missing: n_m", lambda p: rewritten(p, weight__codes=None)),
    ("weight::more", "is one too many", lambda p: rewritten(p, weight__more=CODES)),
    ("weight::codes", "is torch.int8, not", lambda p: rewritten(p, weight__codes=CODES.char())),
    ("weight::codes", "that stands for no 2 of 4", lambda p: rewritten(p, weight__codes=CODES)),
    ("weight::values", "has shape", lambda p: rewritten(p, weight__values=torch.zeros(3))),
    ("weight", "has shape None", lambda p: rewritten(p, lambda f: f["packed"].update(weight=1))),
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    sc.save(sc.compress(sparse_(nn.Linear(32, 16))), path)
    return path


@pytest.mark.parametrize(("tensor", "message", "tamper"), TAMPERED)
def test_contents_that_contradict_are_refused(
    tensor: str, message: str, tamper: Callable[[Path], object], saved: Path
) -> None:
    tamper(saved)
    with pytest.raises(sc.FileError, match=message) as caught:
        sc.load(saved)
    assert (caught.value.path, caught.value.tensor) == (saved, tensor)
    assert "write it again with sparsecompile.save" in str(caught.value)


def header(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


def entry(dtype: Any = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BROKEN = [
    ("", "a header of 100 bytes does not fit into 18", b"{}", 100),
    ("", "the header is no JSON of a tensor file", b"{", None),
    ("", "the header is no JSON of a tensor file", b"[" * 100_000, None),
    ("", "a name occurs twice", b'{"a": 1, "a": 2}', None),
    ("", "the header is no JSON object", b"[]", None),
    ("__metadata__", "is no object of texts", header(__metadata__={"a": 1}), None),
    ("a", "has dtype None, known: F64", header(a=1), None),
    ("a", "has dtype 'X8', known: F64", header(a=entry("X8")), None),
    ("a", r"has shape \[-1\], no list of sizes", header(a=entry(shape=(-1,))), None),
    ("a", r"has data_offsets \[4, 0\], not", header(a=entry(offsets=(4, 0))), None),
    ("a", r"has 4 bytes, U8 \[5\] takes 5", header(a=entry(shape=(5,))), None),
    ("a", "begins at byte 70, not at 68", header(a=entry(offsets=(2, 6))), None),
    ("b", "begins at byte", header(a=entry(), b=entry(offsets=(2, 6))), None),
    ("a", "is cut off: it ends at byte", header(a=entry(shape=(99,), offsets=(0, 99))), None),
    ("", "8 bytes stand behind the last tensor", header(), None),
]


@pytest.mark.parametrize(("tensor", "message", "text", "length"), BROKEN)
def test_headers_that_contradict_the_file_are_refused(
    tensor: str, message: str, text: bytes, length: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "broken.safetensors"
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(sc.FileError, match=message) as caught:
        sc.load(path)
    assert caught.value.tensor == tensor


FORMATS = ("n_m[2:4]", "n_m[2:8]", "block[8x8]", "bitmap", "csr", "dense/int4[group=32]")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    whole = packed_file(name, tmp_path).read_bytes()

    @given(st.integers(0, len(whole) - 1))
    def check(size: int) -> None:
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:size])
        with pytest.raises(sc.FileError) as caught:
            sc.load(path)
        if size >= 8 + int.from_bytes(whole[:8], "little"):
            assert caught.value.tensor.startswith("weight::")

    check()


@pytest.mark.parametrize("name", FORMATS)
def test_a_changed_byte_is_refused_or_makes_another_valid_weight(name: str, tmp_path: Path) -> None:
    path = packed_file(name, tmp_path)
    whole = path.read_bytes()

    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    @settings(max_examples=150)
    def check(place: int, change: int) -> None:
        changed = bytearray(whole)
        changed[place] ^= change
        path.write_bytes(changed)
        try:
            state = sc.load(path)
        except sc.FileError:
            return
        for weight in state.values():
            if isinstance(weight, sc.PackedTensor) and weight.numel() < 1 << 20:
                places = weight.packed.places.flat
                rows, columns = weight.packed.format.structure.padded(weight.packed.shape)
                assert not places.numel() or int(places.max()) < rows * columns
                weight.packed.unpack()

    check()


def packed_file(name: str, folder: Path) -> Path:
    format = sc.default_registry().format(name)
    weight = torch.randn(24, 40)
    mask = sc.NM(2, 8).prune(weight) & sc.Block(8, 8).prune(weight, 0.5)
    packed = format.pack(weight * mask)
    holder = nn.Module()
    holder.weight = nn.Parameter(sc.PackedTensor(Stored(packed)), requires_grad=False)
    path = folder / "packed.safetensors"
    sc.save(holder, path)
    return path
