"""Which group of columns every slot belongs to, for every structure."""

from __future__ import annotations

import pytest
import torch

from sparsecompile import Reject, Structure
from sparsecompile.formats.coordinates import Places
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.registry import default_registry

STRUCTURES = default_registry().all(Structure)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("shape", [(8, 64), (5, 48), (3, 7)], ids=str)
def test_groups_are_those_of_rows_and_columns(structure: Structure, shape: tuple[int, int]) -> None:
    n, k = shape
    weight = torch.randn(n, k)
    try:
        weight = weight * structure.prune(weight)
    except ValueError:
        weight[1, ::2] = 0
    occupancy = Occupancy(weight)
    try:
        structure.find(occupancy)
    except Reject:
        occupancy = Occupancy(torch.zeros(n, k))
    places = Places(structure, structure.encode(occupancy), shape)
    stride = structure.padded(shape)[1]
    for size in (None, 8, 16, 32):
        width = size or k
        count = -(-k // width)
        want = [
            min(at // stride, n - 1) * count + min(at % stride // width, count - 1)
            for at in places.flat.tolist()
        ]
        assert places.count(size) == count
        assert places.groups(size).tolist() == want
