"""load: what a file says is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import sparse_
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.storage.save import KEY
from sparsecompile.storage.tensor_file import TensorFile, write_tensors
from sparsecompile.weights.stored import Stored


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


def sum_of(parts: str) -> Callable[[dict[str, Any]], object]:
    return lambda given: given["expressions"].update(weight=f"sum({parts})")


def nested(given: dict[str, Any]) -> None:
    given["expressions"]["weight"] = "stack(" * 2000 + "csr" + ")" * 2000


CODES = torch.zeros(16, 4, dtype=torch.uint8)
TAMPERED: list[tuple[str, str, Callable[[Path], object]]] = [
    ("", "says nothing about packed weights", lambda p: rewritten(p, lambda f: "{")),
    ("", "version is 3, known are 1 to 2", lambda p: rewritten(p, lambda f: f.update(version=3))),
    ("", "version is None, known are 1 to 2", lambda p: rewritten(p, lambda f: "[]")),
    (
        "",
        "'expressions' in its metadata is None",
        lambda p: rewritten(p, lambda f: f.update(expressions=None)),
    ),
    ("weight", "is no expression of formats: a sum of 1", lambda p: rewritten(p, sum_of("csr"))),
    ("weight", "is no expression of formats: no structure", lambda p: rewritten(p, sum_of("x, y"))),
    ("weight", "is no expression of formats", lambda p: rewritten(p, nested)),
    (
        "weight::0",
        r"is not there: sum\(csr, csr\) needs csr/float",
        lambda p: rewritten(p, sum_of("csr, csr")),
    ),
    ("", "'tied' in its metadata is 3", lambda p: rewritten(p, lambda f: f.update(tied=3))),
    ("", "calls a tensor 3", lambda p: rewritten(p, lambda f: f.update(tied={"a": 3}))),
    ("a", "is tied to b, which", lambda p: rewritten(p, lambda f: f.update(tied={"a": "b"}))),
    ("a", "is not there", lambda p: rewritten(p, lambda f: f.update(buffers=["a"]))),
    (
        "weight",
        r"has shape \[16\] and 256",
        lambda p: rewritten(p, change_weight(shape=[16])),
    ),
    ("weight", "is said to be exact: 1", lambda p: rewritten(p, change_weight(exact=1))),
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
