"""Laws of decompositions, over the registry and one of another kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from factors import OuterProduct
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparsecompile as sc
from sparsecompile.compiler import _run_eagerly
from sparsecompile.formats.expression import Shape
from sparsecompile.formats.names import decomposition_of, remember_decomposition
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.testing.decomposition_laws import check_compiled, check_decomposition
from sparsecompile.testing.laws import SPECIAL_VALUES

# Asked before `low_rank`, which finds the same.
REGISTRY = sc.Registry(OuterProduct(), *sc.default_registry().all(sc.Component))
ALL = REGISTRY.all(sc.Decomposition)


@st.composite
def near(draw: st.DrawFn, decomposition: sc.Decomposition, special: bool) -> Tensor:
    """Weights that a decomposition takes, with strides of their own."""
    n, k = draw(st.integers(1, 70)), draw(st.integers(32, 140))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(n, k).to(draw(st.sampled_from(FLOAT_DTYPES)))
    weight = decomposition.approximate(weight)
    if special and decomposition.family == "outlier_columns":
        place = (weight != 0).nonzero()[0]
        weight[tuple(place)] = draw(st.sampled_from(SPECIAL_VALUES))
    return weight.t().contiguous().t() if draw(st.booleans()) else weight


@pytest.mark.parametrize("decomposition", ALL, ids=str)
def test_parts(decomposition: sc.Decomposition) -> None:
    checked = []

    @given(near(decomposition, special=True))
    def check(weight: Tensor) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.safetensors")
            checked.append(check_decomposition(decomposition, weight, REGISTRY, path))

    check()
    # Not all that are drawn can be split; most of the draws of some runs cannot.
    assert sum(checked) > len(checked) / 8


@pytest.mark.parametrize("decomposition", ALL, ids=str)
def test_compiled(decomposition: sc.Decomposition) -> None:
    checked = []

    @given(near(decomposition, special=False))
    @settings(max_examples=20)
    def check(weight: Tensor) -> None:
        torch._dynamo.reset()
        checked.append(check_compiled(decomposition, weight, REGISTRY, _run_eagerly))

    check()
    assert any(checked)


COLUMNS = torch.ones(8, 64) * ((torch.arange(8)[:, None] + torch.arange(64)) % 4 < 2)
"""2:4, with a zero in every column."""
REFUSED = [
    (COLUMNS, "0 of 64 columns hold no zero, 1 to 2 are needed"),
    (torch.ones(8, 64), "64 of 64 columns hold no zero, 1 to 2 are needed"),
    (torch.zeros(0, 64), "of 64 columns hold no zero"),
    (torch.randn(8, 0), "0 of 0 columns hold no zero, 1 to 0 are needed"),
]


@pytest.mark.parametrize(("weight", "reason"), REFUSED)
def test_columns_that_are_no_outliers(weight: Tensor, reason: str) -> None:
    columns = sc.default_registry().decomposition("outlier_columns")
    with pytest.raises(sc.Reject, match=reason):
        columns.split(weight)


def test_a_zero_below_the_sampled_rows() -> None:
    columns = sc.default_registry().decomposition("outlier_columns")
    weight = torch.zeros(1000, 64)
    weight[:, 3] = weight[:, 5] = 1
    weight[7, 5] = 0
    rest, alone = columns.split(weight).leaves()
    assert torch.equal(alone[:, 3], weight[:, 3])
    assert torch.equal(rest[:, 5], weight[:, 5])
    assert alone.count_nonzero() == 1000


class Other(OuterProduct):
    """One of the same name, whose parts depend on values."""

    def split(self, weight: Tensor) -> sc.Expression[Tensor]:
        return sc.Sum((sc.Leaf(weight), sc.Leaf(weight)))


def test_parts_of_another_form_are_refused() -> None:
    with pytest.raises(sc.Reject, match=r"split the weight into sum\(\(3, 4\), \(3, 4\)\), not"):
        Other().parts(torch.ones(3, 4))


def test_two_of_one_name() -> None:
    names = [remember_decomposition(d) for d in (OuterProduct(), Other(), OuterProduct())]
    assert names[0] == names[2] == "outer_product"
    assert names[1].startswith("outer_product of ")
    assert type(decomposition_of(names[1])) is Other
    with pytest.raises(sc.Reject, match="the weight is dense, not packed as sum"):
        decomposition_of("sum(csr/float, csr/float)")


def test_names_take_no_parameters_unless_they_say_so() -> None:
    with pytest.raises(sc.RegistrationError, match="outlier_columns takes no parameters"):
        REGISTRY.decomposition("outlier_columns[3]")
    with pytest.raises(sc.RegistrationError, match="no decomposition is called 'columns'"):
        REGISTRY.decomposition("columns")


def test_the_shape_of_a_form() -> None:
    form: sc.Expression[Shape] = OuterProduct().form((3, 4))
    assert form.leaves() == ((3, 1), (1, 4))
