"""`svd`: weights of a low rank whose outputs are near, and that the compiler finds factors of."""

from __future__ import annotations

import pytest
import torch
from sparsification.small import rows, stack
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.sparsification.method import Problem
from sparsecompile.sparsification.methods.svd import SVD
from sparsecompile.sparsification.pattern import Pattern

INPUTS = {
    "mixed": lambda: torch.cat(rows()),
    "none": lambda: torch.zeros(4, 32),
    "dead": lambda: torch.cat(rows()) * (torch.arange(32) < 8),
    "alike": lambda: torch.randn(512, 32),
    "anisotropic": lambda: torch.randn(512, 32) * torch.logspace(-2, 1, 32).flip(0),
}


def problem(kind: str, n: int = 48) -> Problem:
    """Two weights, one taller than wide and one wider than tall."""
    torch.manual_seed(0)
    x = INPUTS[kind]().double()
    return Problem(torch.randn(n, 32), (n - 16, 16), Pattern.parse("rank(0.25)"), x.T @ x / len(x))


def plain(given: Problem, *ranks: int) -> Tensor:
    """The nearest weights of these ranks."""
    made = []
    for part, rank in zip(given.weight.split(given.rows), ranks, strict=True):
        u, values, v = torch.linalg.svd(part, full_matrices=False)
        made.append(u[:, :rank] * values[:rank] @ v[:rank])
    return torch.cat(made)


@pytest.mark.parametrize("kind", INPUTS)
def test_no_worse_than_the_nearest_weights_of_that_rank(kind: str) -> None:
    given = problem(kind)
    solved = SVD().solve(given)
    assert [int(torch.linalg.matrix_rank(p)) for p in solved.split(given.rows)] == [8, 4]
    ours, theirs = given.errors(solved), given.errors(plain(given, 8, 4))
    assert bool((ours <= theirs * (1 + 1e-5)).all()), (ours, theirs)
    if kind == "anisotropic":
        assert bool((2 * ours < theirs).all()), (ours, theirs)


def test_nearest_in_outputs() -> None:
    """As SVD-LLM has it: `W S` is truncated, for `S S^T` the moments, and S undone."""
    given = problem("mixed")
    assert given.second is not None
    factor = torch.linalg.cholesky(given.second)
    made = []
    for part, rank in zip(given.weight.split(given.rows), (8, 4), strict=True):
        u, values, v = torch.linalg.svd(part.double() @ factor, full_matrices=False)
        nearest = u[:, :rank] * values[:rank] @ v[:rank]
        made.append(torch.linalg.solve_triangular(factor, nearest, upper=False, left=False))
    torch.testing.assert_close(SVD(damp=0.0).solve(given), torch.cat(made).float())


@torch.no_grad()
def test_what_it_makes_is_factored_without_a_loss() -> None:
    model, x = stack().eval(), torch.cat(rows())
    dense = model(x)
    report = sc.sparsify(model, "rank(0.125)", method="svd", calibration=rows())
    assert [w.packed_bytes for w in report.weights] == [4 * 4 * 96, 4 * 8 * 128, 4 * 2 * 80]
    assert 0.01 < float((model(x) - dense).norm() / dense.norm()) < 1
    expected = model(x)
    # Unasked, as any weight of a rank that low.
    compiler = sc.Compiler(tune="off")
    fast = torch.compile(model, backend=compiler)
    torch.testing.assert_close(fast(x), expected)
    assert [node.shape for node in compiler.report.nodes] == [
        (4, 32),
        (64, 4),
        (8, 64),
        (64, 8),
        (2, 64),
        (16, 2),
    ]
    assert not any(node.lossy for node in compiler.report.nodes)


@pytest.mark.parametrize(
    ("pattern", "method", "option", "why"),
    [
        ("rank(0.25)", "sparsegpt", "method", "'sparsegpt' makes no weights of pattern 'rank(0.25"),
        ("2:4", "svd", "method", "method 'svd' makes no weights of pattern '2:4': method='sparseg"),
        ("rank(0.7)", "svd", "pattern", "factors of rank 22 of the 64 x 32 weight of '0', which"),
        ("rank(0.0)", "svd", "pattern", "no pattern is called 'rank(0.0)': cannot prune to"),
        ("rank(0.25)/int4", "svd", "pattern", "no pattern is called 'rank(0.25)/int4': cannot pr"),
    ],
)
def test_refusals(pattern: str, method: str, option: str, why: str) -> None:
    with pytest.raises(sc.OptionError) as caught:
        sc.sparsify(stack(), pattern, method=method, calibration=rows())
    assert caught.value.option == option
    assert why in str(caught.value)


def test_other_linears_may_stay() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    kept = model[1].weight.clone()
    sc.sparsify(model, {"0": "rank(0.25)", "1": None}, method="svd", calibration=rows())
    assert int(torch.linalg.matrix_rank(model[0].weight)) == 8
    assert torch.equal(model[1].weight, kept)
