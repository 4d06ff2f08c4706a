"""The laws of every registered structure and codec."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecompile import (
    CSR,
    NM,
    Bitmap,
    Block,
    Codec,
    Dense,
    Float,
    Format,
    Int4,
    Int8,
    Occupancy,
    RegistrationError,
    Reject,
    Structure,
    default_registry,
)
from sparsecompile.testing import check_format, weights

STRUCTURES = default_registry().all(Structure)
CODECS = default_registry().all(Codec)
SCALES = (torch.bfloat16, torch.float16, torch.float32)
FORMATS = [Format(s, c) for s in STRUCTURES for c in CODECS]


@pytest.mark.parametrize("format", FORMATS, ids=str)
@given(data=st.data())
def test_round_trip(format: Format, data: st.DataObject) -> None:
    check_format(format, data.draw(weights(format.structure)))


def test_what_n_of_m_promises() -> None:
    found = [[NM(n, m).most_kept(columns) for columns in (2, 3, 4, 8)] for n, m in ((2, 4), (1, 8))]
    assert found == [[2, 3, 2, 4], [1, 3, 1, 1]]


@given(data=st.data(), m=st.integers(2, 32))
@settings(max_examples=40)
def test_every_n_of_m(data: st.DataObject, m: int) -> None:
    structure = NM(data.draw(st.integers(1, min(m - 1, 4))), m)
    check_format(Format(structure, Float()), data.draw(weights(structure)))


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@given(data=st.data())
def test_any_weight_is_packed_or_refused(structure: Structure, data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(CODECS))
    check_format(Format(structure, codec), data.draw(weights(Bitmap())))


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_names_are_read_back(structure: Structure) -> None:
    assert default_registry().structure(structure.name) == structure
    parameters = structure.name.partition("[")[2].removesuffix("]")
    assert type(structure).parse(parameters) == structure


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_names_of_codecs_are_read_back(codec: Codec) -> None:
    registry = default_registry()
    assert registry.codec(codec.name) == codec
    assert registry.format(f"n_m[3:5]/{codec}") == Format(NM(3, 5), codec)
    assert hash(registry.codec(codec.name)) == hash(codec)


def test_groups_that_are_not_registered_are_made() -> None:
    assert default_registry().codec("int4[group=48]") == Int4(48) != Int8(48)
    with pytest.raises(RegistrationError, match="no codec 'int8\\[3\\]': int8 takes group="):
        default_registry().codec("int8[3]")


@pytest.mark.parametrize("group", [None, 48])
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_names_of_scales_are_read_back(group: int | None, scales: torch.dtype) -> None:
    codec = Int4(group, scales)
    assert default_registry().codec(codec.name) == codec
    assert (codec == Int4(group)) == (scales == torch.bfloat16)
    assert ("scales" in codec.name) == (scales != torch.bfloat16)


def test_scales_that_are_no_floats() -> None:
    with pytest.raises(ValueError, match=r"scales of torch\.int8 are none of"):
        Int8(None, torch.int8)


@pytest.mark.parametrize("group", [1, 5, 48, 1000])
@given(data=st.data())
@settings(max_examples=10)
def test_every_group(group: int, data: st.DataObject) -> None:
    structure = data.draw(st.sampled_from((Dense(), Bitmap(), NM(2, 4), Block(4, 16))))
    scales = data.draw(st.sampled_from(SCALES))
    codec = data.draw(st.sampled_from((Int8(group, scales), Int4(group, scales))))
    check_format(Format(structure, codec), data.draw(weights(structure)))


def test_integers_by_hand() -> None:
    """One group of two columns, one of the last; four bits, the first slot lowest."""
    weight = torch.tensor([[7.0, -2.0, 3.5], [0.0, 0.0, -14.0]])
    packed = Format(Dense(), Int4(2)).pack(weight)
    least = torch.finfo(torch.bfloat16).tiny  # of a group without a value but zero
    assert packed.values["scales"].tolist() == [[1.0, 0.5], [least, 2.0]]
    codes = [7 + 8, -2 + 8, 7 + 8, 0 + 8, 0 + 8, -7 + 8]
    pairs = zip(codes[::2], codes[1::2], strict=True)
    assert packed.values["values"].tolist() == [low | high << 4 for low, high in pairs]
    assert packed.slots == 6
    packed = Format(Dense(), Int8()).pack(weight[1:])
    assert packed.values["values"].tolist() == [0, 0, -127]


@pytest.mark.parametrize(
    ("codec", "bits"),
    [(Int8(), 8 + 16 / 256), (Int8(128), 8.125), (Int4(), 4 + 16 / 256), (Int4(32), 4.5)],
    ids=str,
)
def test_bits_of_quantized_weights(codec: Codec, bits: float) -> None:
    weight = torch.randn(64, 256, dtype=torch.bfloat16)
    assert Format(Dense(), codec).pack(weight).nbytes == 64 * 256 * bits / 8


@pytest.mark.parametrize("codec", [Int8(), Int4(32)], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 65504.0])
def test_values_that_integers_cannot_store(codec: Codec, value: float) -> None:
    weight = torch.zeros(4, 8, dtype=torch.float16)
    weight[2, 5] = value
    with pytest.raises(Reject) as refusal:
        Format(CSR(), codec).pack(weight)
    assert refusal.value.reason == (
        f"row 2, column 5 holds {value:g}, {codec} stores finite values up to 6.5e+04"
    )


def test_the_largest_and_the_smallest_values_that_integers_store() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weight = torch.full((2, 8), 0.99 * torch.finfo(dtype).max, dtype=dtype)
        weight[1] = torch.finfo(dtype).tiny / 4
        for scales in (torch.bfloat16, torch.float32):
            for codec in (Int8(None, scales), Int4(None, scales)):
                check_format(Format(Dense(), codec), weight)
                assert Format(Dense(), codec).pack(weight).unpack().isfinite().all()


@pytest.mark.parametrize("codec", [Int8(None, torch.float16), Int4(2, torch.float16)], ids=str)
def test_the_largest_and_the_smallest_scales_of_float16(codec: Int8 | Int4) -> None:
    tiny, most = 2.0**-14, codec.largest * 65504.0
    weight = torch.tensor([[most, most], [tiny / 2, tiny / 2], [tiny * 0.51, 0], [3 * tiny, tiny]])
    check_format(Format(Dense(), codec), weight)
    packed = Format(Dense(), codec).pack(weight)
    assert packed.values["scales"].flatten().tolist() == [65504.0, tiny, tiny, tiny]
    assert packed.unpack().tolist() == [[most, most], [0, 0], [tiny, 0], [3 * tiny, tiny]]
    with pytest.raises(Reject, match=re.escape(f"{codec} stores finite values up to {most:.3g}")):
        Format(Dense(), codec).pack(weight * 1.01)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("offsets", ["zero_points", "minima"])
def test_groups_of_one_value_have_the_least_scale(
    offsets: Literal["zero_points", "minima"], lossless: bool
) -> None:
    """What a kernel adds and takes off again is in scales: of nothing there is nothing to add."""
    weight = torch.tensor([[0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.5, -0.5]])
    codec = replace(Int8(2, torch.float32, offsets), lossless=lossless)
    packed = Format(Dense(), codec).pack(weight)
    assert packed.values["scales"][:, 0].tolist() == [torch.finfo(torch.float32).tiny] * 2
    assert packed.unpack()[:, :2].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("codec", [Int8(8, torch.float32), Int4(8, torch.float32)], ids=str)
@given(seed=st.integers(0, 2**16))
def test_scales_of_float32_leave_products_exact(codec: Int8 | Int4, seed: int) -> None:
    weight = torch.randn(9, 40, generator=torch.Generator().manual_seed(seed))
    scales = Format(Dense(), codec).pack(weight).values["scales"]
    products = scales.double() * codec.largest
    assert torch.equal(products.float().double(), products)
    exact = weight.view(9, 5, 8).abs().amax(2).double() / codec.largest
    # Half a step of what has 17 bits, or 21, and of what float32 has.
    assert ((scales - exact).abs() <= exact * ((codec.largest + 2) * 2.0**-24)).all()


def test_two_four_is_the_format_of_the_paper() -> None:
    weight = torch.tensor([[0.0, 1.0, 0.0, 2.0, 3.0, 0.0, 4.0, 0.0]])
    packed = Format(NM(2, 4), Float()).pack(weight)
    assert packed.values["values"].tolist() == [1, 2, 3, 4]
    assert packed.index["codes"].tolist() == [[(1 | 3 << 2) | (0 | 2 << 2) << 4]]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_csr_is_torch_csr() -> None:
    weight = torch.randn(17, 23) * (torch.rand(17, 23) < 0.2)
    packed = Format(CSR(), Float()).pack(weight)
    theirs = weight.to_sparse_csr()
    assert torch.equal(packed.index["crow"].long(), theirs.crow_indices())
    assert torch.equal(packed.index["col"].long(), theirs.col_indices())
    assert torch.equal(packed.values["values"], theirs.values())


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_block_is_torch_bsr() -> None:
    weight = torch.randn(24, 32) * Block(8, 4).prune(torch.randn(24, 32), 0.5)
    packed = Format(Block(8, 4), Float()).pack(weight)
    theirs = weight.to_sparse_bsr((8, 4))
    assert torch.equal(packed.index["crow"].long(), theirs.crow_indices())
    assert torch.equal(packed.index["col"].long(), theirs.col_indices())
    assert torch.equal(packed.values["values"].view(-1, 8, 4), theirs.values())


@pytest.mark.parametrize(
    ("structure", "shape", "density", "ratio"),
    [
        (NM(2, 4), (64, 128), 0.5, 16 / 9),
        (NM(4, 8), (64, 128), 0.5, 16 / 9),
        (NM(1, 4), (64, 128), 0.25, 16 / 4.5),
        (NM(1, 8), (64, 128), 0.125, 16 / 2.5),
        (NM(8, 16), (64, 128), 0.5, 16 / 9),
        (NM(16, 32), (64, 128), 0.5, 16 / 9),
        (Dense(), (64, 128), 1.0, 1.0),
    ],
    ids=str,
)
def test_compression_of_bfloat16(
    structure: Structure, shape: tuple[int, int], density: float, ratio: float
) -> None:
    # Drawn in bfloat16, some are zero with older versions of torch.
    weight = torch.randn(shape).bfloat16()
    if structure != Dense():
        weight = weight * structure.prune(weight)
    assert Occupancy(weight).density == density
    assert Format(structure, Float()).pack(weight).compression == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.97])
def test_closed_formulas_of_unstructured(sparsity: float) -> None:
    n, k = 96, 256
    weight = torch.randn(n, k)
    weight = weight * Bitmap().prune(weight, sparsity)
    kept = n * k - round(sparsity * n * k)
    assert Format(Bitmap(), Float()).pack(weight).nbytes == n * k // 8 + 4 * (n + 1) + 4 * kept
    assert Format(CSR(), Float()).pack(weight).nbytes == 4 * (n + 1) + 8 * kept


@pytest.mark.parametrize(
    ("structure", "bits", "coding"),
    [
        (NM(2, 4), 4, "positions"),
        (NM(1, 2), 1, "rank"),
        (NM(1, 4), 2, "rank"),
        (NM(1, 8), 4, "rank"),
        (NM(2, 16), 8, "rank"),
        (NM(4, 32), 16, "rank"),
        (NM(4, 8), 8, "mask"),
        (NM(8, 16), 16, "mask"),
        (NM(16, 32), 32, "mask"),
    ],
    ids=str,
)
def test_codes_take_no_more_than_a_mask(structure: NM, bits: int, coding: str) -> None:
    assert (structure.code_bits, structure.coding) == (bits, coding)


@pytest.mark.parametrize(
    ("structure", "weight", "reason"),
    [
        (
            NM(2, 4),
            torch.tensor([[1.0] * 8, [0.0] * 4 + [1.0, 1.0, 1.0, 0.0]])[1:].repeat(2, 1),
            "row 0, group 1 keeps 3 of 4, at most 2 allowed",
        ),
        (Block(2, 2), torch.ones(4, 6), "none of the 6 blocks of 2x2 is empty"),
        (Dense(), torch.ones(4), "the weight has 1 dimensions, 2 are needed"),
        (
            Dense(),
            torch.ones(4, 4, dtype=torch.float64),
            "the weight is torch.float64, float32, bfloat16 or float16 is needed",
        ),
    ],
)
def test_refusals(structure: Structure, weight: torch.Tensor, reason: str) -> None:
    with pytest.raises(Reject) as refusal:
        Format(structure, Float()).pack(weight)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NM(4, 4), "4:4 is not an n:m"),
        (lambda: NM(1, 33), "1:33 is not an n:m"),
        (lambda: Block(0, 4), "a block of 0x4 has no values"),
        (lambda: Bitmap.parse("3"), "bitmap takes no parameters"),
        (lambda: Float.parse("3"), "float takes no parameters"),
        (lambda: NM(2, 4).prune(torch.ones(4, 4), 0.5), "fixes the share of zeros"),
        (lambda: Bitmap().prune(torch.ones(4, 4)), "a share of zeros between 0 and 1"),
        (lambda: Dense().prune(torch.ones(4, 4)), "dense has no pruning of its own"),
    ],
)
def test_values_that_cannot_be_used(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
