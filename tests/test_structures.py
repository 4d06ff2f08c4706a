"""The laws of every registered structure and codec."""

from __future__ import annotations

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
    Occupancy,
    Reject,
    Structure,
    default_registry,
)
from sparsecompile.testing import check_format, weights

STRUCTURES = default_registry().all(Structure)
CODECS = default_registry().all(Codec)
FORMATS = [Format(s, c) for s in STRUCTURES for c in CODECS]


@pytest.mark.parametrize("format", FORMATS, ids=str)
@given(data=st.data())
def test_round_trip(format: Format, data: st.DataObject) -> None:
    check_format(format, data.draw(weights(format.structure)))


@given(data=st.data(), m=st.integers(2, 32))
@settings(max_examples=40)
def test_every_n_of_m(data: st.DataObject, m: int) -> None:
    structure = NM(data.draw(st.integers(1, min(m - 1, 4))), m)
    check_format(Format(structure, Float()), data.draw(weights(structure)))


@pytest.mark.parametrize("format", FORMATS, ids=str)
@given(data=st.data())
@settings(max_examples=20)
def test_any_weight_is_packed_or_refused(format: Format, data: st.DataObject) -> None:
    check_format(format, data.draw(weights(Bitmap())))


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_names_are_read_back(structure: Structure) -> None:
    assert default_registry().structure(structure.name) == structure
    parameters = structure.name.partition("[")[2].removesuffix("]")
    assert type(structure).parse(parameters) == structure


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
    weight = torch.randn(shape, dtype=torch.bfloat16)
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
