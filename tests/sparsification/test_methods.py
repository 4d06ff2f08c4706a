"""Laws of every registered method: it keeps patterns exactly, and errors are what they seem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from sparsification.small import rows, stack
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.sparsification.columns import inverse_factor
from sparsecompile.sparsification.gradients import Gradients
from sparsecompile.sparsification.method import Method, Problem
from sparsecompile.sparsification.pattern import Pattern

MASKING = [method for method in sc.default_registry().all(Method) if not method.lowers_rank]
METHODS = [method.name for method in MASKING]
PATTERNS = {
    "2:4": "n_m[2:4]/float",
    "4:8": "n_m[4:8]/float",
    "unstructured(0.5)": "bitmap/float",
    "block(8,8,0.5)": "block[8x8]/float",
    "int4[group=16]": "dense/int4[group=16]",
    "int8": "dense/int8",
    "2:4/int4[group=16]": "n_m[2:4]/int4[group=16]",
    "4:8/int4": "n_m[4:8]/int4[group=128]",
    "unstructured(0.75)/int8": "bitmap/int8",
    "block(8,8,0.5)/int4[group=32]": "block[8x8]/int4[group=32]",
    "block(8,4,0.75)/int8[group=4]": "block[8x4]/int8[group=4]",
}


@cache
def problem(pattern: str, n: int = 48) -> Problem:
    """Two weights above one another that read one input, one value of it always zero."""
    x = torch.cat(rows()).double()
    x[:, 5] = 0
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(n, x.shape[1], generator=generator)
    mean = torch.randn(n, x.shape[1], generator=generator)
    gradients = Gradients(mean, 2 * mean.square())
    return Problem(weight, (32, n - 32), Pattern.parse(pattern), x.t() @ x / len(x), gradients)


def parts(of: Problem, weight: Tensor) -> tuple[Tensor, ...]:
    return weight.split(of.rows)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_makes_keeps_its_pattern(name: str, pattern: str) -> None:
    given = problem(pattern)
    solved = sc.default_registry().get(Method, name).solve(given)
    format = sc.default_registry().format(PATTERNS[pattern])
    for part in parts(given, solved):
        packed = format.pack(part)
        assert packed.exact
        assert torch.equal(packed.unpack(), part)
        share = given.pattern.share
        if share is not None and not given.pattern.codec:
            assert float((part == 0).float().mean()) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_makes_of_a_weight_does_not_depend_on_its_neighbours(name: str) -> None:
    both = problem("unstructured(0.5)")
    method = sc.default_registry().get(Method, name)
    assert both.gradients is not None
    slopes = map(Gradients, parts(both, both.gradients.mean), parts(both, both.gradients.square))
    alone = [
        Problem(weight, (len(weight),), both.pattern, both.second, each)
        for weight, each in zip(parts(both, both.weight), slopes, strict=True)
    ]
    apart = torch.cat([method.solve(each) for each in alone])
    torch.testing.assert_close(method.solve(both), apart)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparsegpt_is_never_worse_than_the_others(pattern: str) -> None:
    given = problem(pattern)
    errors = {m.name: given.errors(m.solve(given)) for m in MASKING}
    for name in ("wanda", "magnitude"):
        assert bool((errors["sparsegpt"] <= errors[name] * (1 + 1e-5)).all()), errors
    # And better where later columns can make up for something.
    assert bool((errors["sparsegpt"] < errors["wanda"]).all()), errors


def test_sparsegpt_takes_the_simple_mask_where_that_is_better() -> None:
    given = problem("2:4")
    swept = torch.zeros_like(given.weight)
    kept = given.keep(given.mask(given.weight))
    assert torch.equal(given.best(swept, kept), kept)
    assert torch.equal(given.best(kept, swept), kept)


def test_errors_are_those_of_outputs() -> None:
    given = problem("2:4")
    x = torch.cat(rows()).double()
    x[:, 5] = 0
    solved = given.keep(given.mask(given.weight))
    for i, (new, old) in enumerate(
        zip(parts(given, solved), parts(given, given.weight), strict=True)
    ):
        exact = ((x @ (new - old).double().t()).norm() / (x @ old.double().t()).norm()).item()
        assert float(given.errors(solved)[i]) == pytest.approx(exact, rel=1e-5)


def test_columns_make_up_for_what_is_cut_as_well_as_any_weights_do() -> None:
    """The last column of all is cut: what is left is the least squares solution."""
    x = torch.randn(64, 8, dtype=torch.float64)
    weight = torch.randn(4, 8)

    @dataclass(frozen=True)
    class First(Pattern):
        def mask(self, scores: Tensor) -> Tensor:
            mask = torch.ones_like(scores, dtype=torch.bool)
            mask[:, 0] = False
            return mask

    from sparsecompile.sparsification.columns import Sweep

    pattern = First("first", Pattern.parse("7:8").structure)
    second = x.t() @ x / len(x)
    given = Problem(weight, (4,), pattern, second)
    solved = Sweep(given, inverse_factor(second, 0.0).float(), 128).run()
    exact = torch.linalg.lstsq(x[:, 1:], x @ weight.double().t()).solution.t()
    torch.testing.assert_close(solved[:, 1:], exact.float(), rtol=1e-4, atol=1e-5)
    assert bool((solved[:, 0] == 0).all())


@pytest.mark.parametrize("kind", ["dead", "repeated", "none"])
def test_inputs_that_tell_nothing(kind: str) -> None:
    """Moments that have no inverse are made to have one."""
    x = torch.randn(16, 8, dtype=torch.float64)
    if kind == "dead":
        x[:, 2:] = 0
    elif kind == "repeated":
        x[:, 1:] = x[:, :1]
    else:
        x[:] = 0
    second = x.t() @ x / len(x)
    factor = inverse_factor(second, 0.0)
    assert bool(factor.isfinite().all())
    given = Problem(torch.randn(4, 8), (4,), Pattern.parse("2:4"), second)
    solved = sc.default_registry().get(Method, "sparsegpt").solve(given)
    assert bool(solved.isfinite().all())
    assert int((solved != 0).sum()) == 16


def test_factor_is_of_the_inverse() -> None:
    second = problem("2:4").second
    assert second is not None
    damped = second + 0.01 * second.diagonal().mean() * torch.eye(len(second))
    factor = inverse_factor(second, 0.01)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.t() @ factor @ damped, torch.eye(len(second)).double())


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("3:2", "no pattern is called '3:2': cannot prune to '3:2'"),
        ("2:4/float", "no pattern is called '2:4/float': cannot quantize to 'float'"),
        ("2:4/", "no pattern is called '2:4/': cannot quantize to ''"),
        ("int5", "no pattern is called 'int5': cannot quantize to 'int5'"),
        ("2:4/nf4", "no pattern is called '2:4/nf4': nf4[group=64] is no grid of integers around"),
        ("int2", "no pattern is called 'int2': int2[group=32,minima] is no grid of integers"),
        ("2:4/int4[group=6]", "has a scale for 6 columns and zeros for 4: one has to divide"),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, why: str) -> None:
    with pytest.raises(sc.OptionError) as caught:
        sc.sparsify(stack(), pattern, calibration=rows())
    assert caught.value.option == "pattern"
    assert why in str(caught.value)


def test_bfloat16_and_its_dtype_stay() -> None:
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 16)).bfloat16()
    report = sc.sparsify(model, "2:4", calibration=[x.bfloat16() for x in rows()])
    assert [w.dtype for w in report.weights] == ["bfloat16", "bfloat16"]
    assert model[0].weight.dtype == torch.bfloat16
    sc.default_registry().format("2:4".join(("n_m[", "]"))).pack(model[0].weight.detach())
