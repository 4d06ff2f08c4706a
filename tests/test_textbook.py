"""Small exercises whose results are known by heart."""

from __future__ import annotations

from math import comb, log2

import pytest
import torch

import sparsecompile as sc

KNOWN = [s for s in sc.default_registry().all(sc.Structure) if isinstance(s, sc.NM)]


def test_two_of_four_keeps_the_largest() -> None:
    row = torch.tensor([[0.5, -0.2, 0.8, -0.1, 0.3, 0.7, -0.6, 0.4]])
    kept = row[sc.NM(2, 4).prune(row)]
    assert torch.equal(kept, torch.tensor([0.5, 0.8, 0.7, -0.6]))


def test_half_of_a_million_values_in_two_bytes_and_their_places() -> None:
    weight = torch.randn(1024, 1024, dtype=torch.float16)
    weight *= sc.NM(2, 4).prune(weight)
    packed = sc.Format(sc.NM(2, 4), sc.Float()).pack(weight)
    assert (packed.slots, packed.values["values"].element_size()) == (524_288, 2)
    assert packed.nbytes == 2 * 524_288 + 1024 * 1024 // 4 * 4 // 8


def test_integers_of_eight_bits_are_the_weight_over_its_largest() -> None:
    weight = torch.randn(4, 64)
    packed = sc.Format(sc.Dense(), sc.Int8(scales=torch.float32)).pack(weight)
    want = (weight / (weight.abs().amax(1, keepdim=True) / 127)).round()
    assert torch.equal(packed.values["values"].view(4, 64).float(), want)


@pytest.mark.parametrize("structure", KNOWN, ids=str)
def test_a_code_has_the_entropy_of_its_group(structure: sc.NM) -> None:
    """Up to 1, 2, 4, 8 bits and so on, and never more than a bit a place."""
    entropy = log2(comb(structure.m, structure.n))
    assert entropy <= structure.code_bits <= structure.m
    assert structure.code_bits < 2 * max(entropy, 1) or structure.code_bits == structure.m


def test_three_quarters_of_zeros() -> None:
    found = {s.name for s in KNOWN if s.m <= 8 and s.n / s.m == 0.25}
    assert found == {"n_m[1:4]", "n_m[2:8]"}


@pytest.mark.parametrize(("group", "count"), [(32, 3), (16, 5), (128, 1)])
def test_the_last_group_of_a_row_may_be_shorter(group: int, count: int) -> None:
    packed = sc.Format(sc.Dense(), sc.Int4(group)).pack(torch.randn(3, 70))
    assert packed.values["scales"].shape == (3, count)
