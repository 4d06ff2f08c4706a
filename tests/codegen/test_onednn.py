"""Dense weights in oneDNN's order: as exact as torch's, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.cpp import onednn
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.codegen.cpp.onednn import OneDnn, onednn_for
from sparsecompile.kernels.ops import HEADER_BYTES
from sparsecompile.testing import assert_no_worse

SHAPES = ((1, 1), (7, 5), (77, 101), (64, 256), (3, 1000))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

pytestmark = pytest.mark.skipif(
    onednn_for(torch.float32) is None, reason="torch was built without oneDNN"
)


@pytest.fixture(scope="module", autouse=True)
def native(shared_cache: object) -> None:
    load_native()


def linear(x: Tensor, copy: Tensor, bias: Tensor | None, n: int) -> Tensor:
    y: Tensor = OneDnn().op(x, copy, bias, n)
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_as_exact_as_torchs_linear(dtype: torch.dtype, n: int, k: int) -> None:
    found = onednn_for(dtype)
    if found is None:
        pytest.skip(f"oneDNN has no {dtype} on this CPU")
    torch.manual_seed(0)
    weight, bias = torch.randn(n, k).to(dtype), torch.randn(n).to(dtype)
    copy = found.make(weight)
    assert copy.dtype == torch.uint8
    assert copy.dim() == 1
    for lead in ((), (1,), (3,), (2, 40)):
        x = torch.randn(*lead, k).to(dtype)
        for given in (bias, None):
            exact = F.linear(x.double(), weight.double(), None if given is None else bias.double())
            y = linear(x, copy, given, n)
            assert y.shape == (*lead, n)
            # It sums in another order than MKL: terms may be larger than their sum.
            terms = F.linear(x.abs().double(), weight.abs().double())
            assert_no_worse(y, F.linear(x, weight, given), exact, scale=terms)


def test_activations_that_are_not_contiguous() -> None:
    weight, x = torch.randn(6, 8), torch.randn(8, 5).t()
    torch.testing.assert_close(linear(x, OneDnn().make(weight), None, 6), F.linear(x, weight))


@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 8), (3, 4, 0)])
def test_nothing_to_multiply(m: int, n: int, k: int) -> None:
    copy = OneDnn().make(torch.randn(n, 8))
    bias = torch.randn(n)
    want = F.linear(torch.randn(m, k), torch.randn(n, k), bias)
    torch.testing.assert_close(linear(torch.randn(m, k), copy, bias, n), want)


def another_layout(copy: Tensor) -> Tensor:
    copy.view(torch.int64)[0] += 3
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_layout, "no dense weight in oneDNN's order"),
        (lambda copy: copy[:-64], "no dense weight in oneDNN's order"),
        (lambda copy: copy[: HEADER_BYTES - 1], "must be uint8, one-dimensional"),
        (lambda copy: copy.view(2, -1), "must be uint8, one-dimensional"),
        (lambda copy: torch.randn(6, 8), "the dense weight has 6 rows|n is 6"),
    ],
)
def test_refuses_other_bytes(change: Callable[[Tensor], Any], message: str) -> None:
    copy = OneDnn().make(torch.randn(6, 8))
    with pytest.raises(RuntimeError, match=message):
        linear(torch.randn(3, 8), change(copy), None, 6)


def test_refuses_other_shapes_and_dtypes() -> None:
    copy = OneDnn().make(torch.randn(6, 8))
    with pytest.raises(RuntimeError, match="n is 7, the dense weight has 6 rows"):
        linear(torch.randn(3, 8), copy, None, 7)
    with pytest.raises(RuntimeError, match="its last dimension must be 8"):
        linear(torch.randn(3, 9), copy, None, 6)
    with pytest.raises(RuntimeError, match="x is BFloat16, the dense weight Float"):
        linear(torch.randn(3, 8).bfloat16(), copy, None, 6)


def test_torch_finds_nothing_wrong_with_it() -> None:
    args = (torch.randn(2, 3, 8), OneDnn().make(torch.randn(6, 8)), torch.randn(6), 6)
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.sparsecompile.dense_linear.default, args, test_utils=utilities)


def test_there_is_none_where_torch_or_the_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    look = onednn.onednn_for.__wrapped__
    assert look(torch.float32) == OneDnn()
    assert look(torch.float64) is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert look(torch.float32) is None
