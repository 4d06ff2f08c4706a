"""Laws of formats in models and files: over every structure and codec of the registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparsecompile as sc
from sparsecompile.testing import weights
from sparsecompile.testing.storage_laws import check_storage, same_bits

REGISTRY = sc.default_registry()
FORMATS = [
    sc.Format(structure, codec)
    for structure in REGISTRY.all(sc.Structure)
    for codec in REGISTRY.all(sc.Codec)
    if codec.lossless or getattr(codec, "group", None) in (None, 32)
] + [
    sc.Format(structure, codec)
    for structure in (sc.Dense(), sc.Bitmap())
    for codec in (sc.Int8(None, torch.float32), sc.Int4(32, torch.float16))
]


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_storage(format: sc.Format) -> None:
    @given(weights(format.structure, special=format.codec.lossless))
    @settings(max_examples=8)
    def check(weight: Tensor) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check_storage(format, weight, Path(folder, "weights.safetensors"))

    check()


class Sealed(sc.CSR):
    """A structure that cannot tell rows apart and has no check of its own."""

    family = "sealed"
    take = sc.Structure.take
    check_index = sc.Structure.check_index


class SealedFloat(sc.Float):
    """A codec that cannot tell rows apart."""

    family = "sealed_float"
    take = sc.Codec.take


@pytest.mark.parametrize(
    "format", [sc.Format(Sealed(), sc.Float()), sc.Format(sc.CSR(), SealedFloat())], ids=str
)
def test_rows_of_what_cannot_tell_rows_apart(format: sc.Format) -> None:
    weight = torch.randn(6, 8) * sc.NM(2, 4).prune(torch.randn(6, 8))
    rows = torch.tensor([5, 0, 5])
    assert same_bits(format.pack(weight).rows(rows), weight[rows] + 0.0)


def sealed(**changes: Tensor) -> tuple[dict[str, Tensor], int]:
    weight = torch.zeros(3, 4)
    weight[0, 1] = weight[2, 3] = 1
    packed = sc.Format(sc.CSR(), sc.Float()).pack(weight)
    return {**packed.index, **changes}, packed.slots


def test_index_of_a_structure_without_a_check() -> None:
    Sealed().check_index(*sealed()[:1], (3, 4), 2)
    outside, slots = sealed(col=torch.tensor([1, 4], dtype=torch.int32))
    with pytest.raises(sc.Reject, match="crow does not name 2 places"):
        Sealed().check_index(outside, (3, 4), slots)
    falling, slots = sealed(crow=torch.tensor([0, 2, 1, 2], dtype=torch.int32))
    with pytest.raises(sc.Reject, match="crow cannot be read: "):
        Sealed().check_index(falling, (3, 4), slots)


def i32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def u8(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


WRONG_INDEX = [
    (sc.Dense(), {}, (2, 2), 3, "values has 3 slots, 4 are needed"),
    (sc.CSR(), {"crow": i32(0), "col": i32()}, (1, 4), 0, r"crow has shape \(1,\), \[2\] is"),
    (sc.CSR(), {"crow": i32(0, 2, 1), "col": i32(0)}, (2, 4), 1, "crow does not rise from 0 to 1"),
    (sc.CSR(), {"crow": i32(1, 1), "col": i32(0)}, (1, 4), 1, "crow does not rise from 0 to 1"),
    (sc.CSR(), {"crow": i32(0, 2), "col": i32(0)}, (1, 4), 2, r"col has shape \(1,\), \[2\] is"),
    (sc.CSR(), {"crow": i32(0, 1), "col": i32(4)}, (1, 4), 1, "col names column 4 of 4"),
    (sc.CSR(), {"crow": i32(0, 1), "col": i32(-1)}, (1, 4), 1, "col names column -1 of 4"),
    (sc.CSR(), {"crow": i32(0, 2), "col": i32(1, 1)}, (1, 4), 2, "col does not ascend"),
    (sc.Block(2, 2), {"crow": i32(0, 0), "col": i32()}, (2, 4), 3, "no whole 2x2 blocks"),
    (sc.Block(2, 2), {"crow": i32(0, 1), "col": i32(2)}, (2, 4), 4, "col names column 2 of 2"),
    (sc.Bitmap(), {"bits": u8([1]), "row_offsets": i32(0, 2)}, (1, 4), 2, "bits has other counts"),
    (sc.Bitmap(), {"bits": u8([16]), "row_offsets": i32(0, 1)}, (1, 4), 1, "behind column 3"),
    (sc.Bitmap(), {"bits": u8([1, 0]), "row_offsets": i32(0, 1)}, (1, 4), 1, "bits has shape"),
    (sc.NM(2, 4), {"codes": u8([0])}, (1, 4), 2, "stands for no 2 of 4 columns"),
    (sc.NM(2, 4), {"codes": u8([4, 4])}, (1, 4), 2, r"codes has shape \(1, 2\), \[1, 1\] is"),
    (sc.NM(2, 4), {"codes": u8([4])}, (1, 4), 3, "codes stand for 2 slots, not 3"),
    (sc.NM(2, 8), {"codes": u8([28])}, (1, 8), 2, "stands for no 2 of 8 columns"),
    (sc.NM(4, 8), {"codes": u8([7])}, (1, 8), 4, "stands for no 4 of 8 columns"),
]


@pytest.mark.parametrize(("structure", "index", "shape", "slots", "reason"), WRONG_INDEX)
def test_an_index_that_leads_elsewhere_is_refused(
    structure: sc.Structure,
    index: dict[str, Tensor],
    shape: tuple[int, int],
    slots: int,
    reason: str,
) -> None:
    with pytest.raises(sc.Reject, match=reason):
        structure.check_index(index, shape, slots)


ONE = torch.ones(1, 1, dtype=torch.bfloat16)
I8 = torch.tensor([1, -128], dtype=torch.int8)
WRONG_VALUES = [
    (sc.Float(), {"values": torch.ones(3)}, r"values has shape \(3,\), \[2\] is needed"),
    (sc.Int8(), {"values": I8[:1], "scales": ONE}, r"values has shape \(1,\), \[2\] is needed"),
    (sc.Int8(), {"values": I8, "scales": ONE[0]}, r"scales has shape \(1,\), \[1, 1\] is needed"),
    (sc.Int8(), {"values": I8, "scales": -ONE}, "scales holds one that is not finite and above"),
    (sc.Int8(), {"values": I8, "scales": ONE / 0}, "scales holds one that is not finite"),
    (
        sc.Int8(None, torch.float32),
        {"values": I8, "scales": ONE / 0},
        "scales holds one that is not finite",
    ),
    (sc.Int8(), {"values": I8, "scales": ONE}, "values holds one outside of -127 to 127"),
    (sc.Int4(), {"values": u8([0x10])[0], "scales": ONE}, "values holds one outside of -7 to 7"),
]


@pytest.mark.parametrize(("codec", "values", "reason"), WRONG_VALUES)
def test_values_that_no_codec_writes_are_refused(
    codec: sc.Codec, values: dict[str, Tensor], reason: str
) -> None:
    with pytest.raises(sc.Reject, match=reason):
        codec.check_values(values, (1, 4), 2)


@given(st.integers(0, 5))
def test_the_unused_half_of_a_last_byte_may_be_anything(high: int) -> None:
    values = {"values": torch.tensor([0x98, high << 4 | 8], dtype=torch.uint8), "scales": ONE}
    sc.Int4().check_values(values, (1, 4), 3)
