"""Sums of Einstein that are linears become linears; others stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from packing import Packing, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile import PACKED, Compiler, packed_linears
from sparsecompile.testing import apply_passes, assert_no_worse, captured

SIZES = dict(zip("bskn", (2, 3, 16, 8), strict=True))


class Uses(nn.Module):
    """A weight and what is done with it."""

    def __init__(self, weight: Tensor, call: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.weight, self.call = nn.Parameter(weight, requires_grad=False), call

    def forward(self, x: Tensor) -> Any:
        return self.call(x, self.weight)


def weight_of(n: int, k: int) -> Tensor:
    return sparse_(nn.Linear(k, n)).weight.detach()


SPELLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rows": lambda x, w: torch.einsum("bk,nk->bn", x[0], w),
    "any rows": lambda x, w: torch.einsum("...k,nk->...n", x, w),
    "batch": lambda x, w: torch.einsum("bsk,nk->bsn", x, w),
    "batch and any rows": lambda x, w: torch.einsum("b...k,nk->b...n", x, w),
    "one row": lambda x, w: torch.einsum("k,nk->n", x[0, 0], w),
    "stored [k, n]": lambda x, w: torch.einsum("bsk,kn->bsn", x, w.t()),
    "operands swapped": lambda x, w: torch.einsum("nk,bsk->bsn", w, x),
    "swapped, stored [k, n]": lambda x, w: torch.einsum("kn,bsk->bsn", w.T, x),
    "spaces": lambda x, w: torch.einsum(" b s k , n k -> b s n ", x, w),
    "list": lambda x, w: torch.einsum("bsk,nk->bsn", [x, w]),
    "other letters": lambda x, w: torch.einsum("Abi,oi->Abo", x, w),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_linears_that_are_spelt_as_sums_are_packed(name: str) -> None:
    model, backend, x = Uses(weight_of(24, 16), SPELLINGS[name]), Packing(), torch.randn(2, 3, 16)
    with torch.no_grad():
        ours = torch.compile(model, backend=backend)(x)
        assert_no_worse(ours, model(x), SPELLINGS[name](x.double(), model.weight.double()))
    assert backend.packed == ["weight"]


OTHERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rows last": lambda x, w: torch.einsum("bk,nk->nb", x[0], w),
    "columns first": lambda x, w: torch.einsum("kb,nk->bn", x[0].t(), w),
    "not summed": lambda x, w: torch.einsum("bsk,nk->bsnk", x, w),
    "all summed": lambda x, w: torch.einsum("bsk,nk->bs", x, w),
    "a diagonal": lambda x, w: torch.einsum("kk,nk->kn", x[0].t() @ x[0], w),
    "no result named": lambda x, w: torch.einsum("bsk,nk", x, w),
    "three operands": lambda x, w: torch.einsum("bsk,nk,n->bsn", x, w, w[:, 0]),
    "one column": lambda x, w: torch.einsum("bsk,nk->bsn", x[..., :1], w),
    "no weight": lambda x, w: torch.einsum("bsk,btk->bst", x, x),
    "by numbers": lambda x, w: torch.einsum(x, [0, 1, 2], w, [3, 2], [0, 1, 3]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_stay_and_do_not_keep_a_linear_from_being_packed(name: str) -> None:
    model = Uses(weight_of(24, 16), lambda x, w: (F.linear(x, w), OTHERS[name](x, w)))
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        gm, inputs = captured(model, x)
        edit = apply_passes(Compiler().passes, gm, inputs)
        found, (_, expected) = edit.module(*inputs), model(x)
    assert len(list(packed_linears(edit))) == 1
    assert torch.equal(found[1], expected)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, str, str]:
    """Terms of an input, of a weight, and of the result, most of them of something else."""
    terms = [draw(st.lists(st.sampled_from("bsk"), min_size=1, max_size=3)), ["n", "k"]]
    result = draw(st.lists(st.sampled_from([*terms[0], "n"]), unique=True, max_size=4))
    if draw(st.booleans()):
        result = [*terms[0][:-1], "n"]
    weight = draw(st.permutations(terms[1]))
    if draw(st.booleans()):
        terms[0].insert(draw(st.integers(0, len(terms[0]))), "...")
        result.insert(draw(st.integers(0, len(result))), "...")
    return "".join(terms[0]), "".join(weight), "".join(result)


@given(terms=equations(), swapped=st.booleans(), seed=st.integers(0, 99))
@example(terms=("bsk", "nk", "bsn"), swapped=False, seed=0)
@example(terms=("b...k", "kn", "b...n"), swapped=True, seed=0)
@example(terms=("k...", "nk", "...n"), swapped=False, seed=0)
@settings(max_examples=60)
def test_a_sum_becomes_a_linear_that_computes_the_same_or_stays(
    terms: tuple[str, str, str], swapped: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    of_x, of_w, result = terms
    first, second = (of_w, of_x) if swapped else (of_x, of_w)
    equation = f"{first},{second}->{result}"

    def call(x: Tensor, w: Tensor) -> Tensor:
        return torch.einsum(equation, w, x) if swapped else torch.einsum(equation, x, w)

    # An ellipsis stands for two dimensions.
    sizes = [SIZES[letter] for letter in of_x.replace("...", "")]
    at = of_x.find("...")
    sizes[at:at] = [2, 3] if at >= 0 else []
    x = torch.randn(sizes)
    weight = sparse_(nn.Linear(SIZES["k"], SIZES["n"])).weight.detach()
    model = Uses(weight if of_w == "nk" else weight.t().contiguous(), call)
    with torch.no_grad():
        try:
            eager = model(x)
        except RuntimeError:
            assume(False)
        gm, inputs = captured(model, x)
        edit = apply_passes(Compiler().passes, gm, inputs)
        (ours,) = edit.module(*inputs)
        assert_no_worse(ours, eager, call(x.double(), model.weight.double()))
    # Nobody who reads the result by its strides is misled.
    assert ours.stride() == eager.stride()
    is_linear = any(PACKED.match(node) for node in edit.nodes())
    letters = of_x.replace("...", "")
    assert is_linear == (
        of_x[-1:] == "k" and result == f"{of_x[:-1]}n" and len(set(letters)) == len(letters)
    )
