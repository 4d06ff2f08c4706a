"""`read_int8_cache`: however a cache of int8 is dequantized, attention reads the integers."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention.spellings import repeat_kv
from torch import Tensor
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.report.facts import NodeReport
from sparsecompile.testing.laws import assert_no_worse

Dequantize = Callable[[Tensor, Tensor, torch.dtype], Tensor]
SPELLINGS: dict[str, Dequantize] = {
    "cast": lambda x, s, dtype: x.to(dtype) * s.to(dtype),
    "promoted": lambda x, s, dtype: (x * s).to(dtype),
    "swapped": lambda x, s, dtype: torch.mul(s.float(), x.float()).to(dtype),
    "method": lambda x, s, dtype: x.type(dtype).mul(s).type_as(torch.empty(0, dtype=dtype)),
    "copied": lambda x, s, dtype: x.to(torch.float32).mul(s.float()).contiguous().to(dtype),
}
REPEATS: dict[str, Callable[[Tensor], Tensor]] = {
    "grouped": lambda x: x,
    "repeated": repeat_kv,
    "interleaved": lambda x: x.repeat_interleave(2, 1),
    "some": lambda x: repeat_kv(x[:, :, :50]),
    "last": lambda x: repeat_kv(x[:, :, 3:, :]),
}
SCALES = ((2, 2, 70, 1), (1, 2, 1, 1), (70, 1), (2, 1, 70, 1), ())


def inputs(dtype: torch.dtype, scales: torch.dtype, queries: int, *sizes: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    q = torch.randn(2, 4, queries, 16, generator=generator).to(dtype)
    shape, of = (2, 2, 70, 16), sizes or SCALES[:2]
    k, v = (torch.randint(-128, 128, shape, generator=generator).to(torch.int8) for _ in range(2))
    k_scale, v_scale = ((torch.rand(s, generator=generator) / 64).to(scales) for s in of)
    return [q, k, k_scale, v, v_scale]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=k.shape[1] != q.shape[1])


def compiled(
    run: Callable[..., Tensor], *args: Any, **options: Any
) -> tuple[Tensor, NodeReport, Any]:
    compiler = sc.Compiler(**options)
    ours = torch.compile(run, backend=compiler)(*args)
    (found,) = (node for node in compiler.report.nodes if node.reader == "attention")
    return ours, found, compiler.report


def drawn() -> list[tuple[Any, ...]]:
    """Every two spellings and every repetition, the rest at random."""
    pick, repeats, cases = random.Random(0), itertools.cycle(REPEATS), []
    for spellings in itertools.combinations(SPELLINGS, 2):
        dtype = pick.choice((torch.float32, torch.bfloat16, torch.float16))
        scales, sizes = pick.choice((dtype, torch.float32)), pick.choices(SCALES, k=2)
        cases.append((*pick.sample(spellings, 2), next(repeats), dtype, scales, sizes))
    return cases


@pytest.mark.parametrize(("keys", "values", "repeat", "dtype", "scales", "sizes"), drawn())
@pytest.mark.parametrize("queries", [1, 20])
@torch.no_grad()
def test_spellings(
    keys: str,
    values: str,
    repeat: str,
    dtype: torch.dtype,
    scales: torch.dtype,
    sizes: Any,
    queries: int,
) -> None:
    def run(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
        k = SPELLINGS[keys](k, k_scale, q.dtype)
        v = SPELLINGS[values](v, v_scale, q.dtype)
        return attend(q, REPEATS[repeat](k), REPEATS[repeat](v))

    args = inputs(dtype, scales, queries, *sizes)
    ours, found, report = compiled(run, *args)
    wide = [t.double() if t.is_floating_point() else t for t in args]
    q, k, k_scale, v, v_scale = wide
    exact = attend(q, REPEATS[repeat](k * k_scale), REPEATS[repeat](v * v_scale))
    assert_no_worse(ours, run(*args), exact)
    assert found.packed, found.reason
    assert found.problem.startswith(f"attention {dtype}".replace("torch.", ""))
    assert "groups=2 kv=int8" in found.problem
    assert not re.search(r'"b?f\d+\[2, [24], (70|67|50), 16\]"', report.after), "dequantized"


@torch.no_grad()
def test_lengths_that_vary_compile_nothing() -> None:
    def run(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
        k, v = (k * k_scale)[:, :, : q.shape[2]], (v * v_scale)[:, :, : q.shape[2]]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    compiler = sc.Compiler()
    fast = torch.compile(run, backend=compiler)
    for queries in (33, 18, 50):
        args = inputs(torch.float32, torch.float32, queries)
        torch._dynamo.mark_dynamic(args[0], 2)
        exact = run(*(t.double() if t.is_floating_point() else t for t in args))
        assert_no_worse(fast(*args), run(*args), exact)
    assert compiler.report.graphs == 1
    assert all("kv=int8" in node.problem for node in compiler.report.nodes)


def dequantized(run: Callable[..., Tensor], *args: Any, **options: Any) -> str:
    """Why an attention reads what is dequantized; it computes what the model does."""
    expected = run(*(t.clone() for t in args))
    ours, found, report = compiled(run, *args, **options)
    torch.testing.assert_close(ours, expected)
    assert "int8" not in found.problem
    (graph,) = report.graph_reports
    reasons = [r.reason for r in graph.rewrites if r.pass_name == "read_int8_cache"]
    (reason,) = reasons
    assert reason.startswith("its cache is dequantized first: ")
    return reason.removeprefix("its cache is dequantized first: ")


def zero_points(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, (k - k_scale) * k_scale, v * v_scale)


def one_alone(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, k * k_scale, v_scale * torch.ones_like(v, dtype=q.dtype))


def groups(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    def scaled(x: Tensor, scale: Tensor) -> Tensor:
        return (x.unflatten(-1, (2, 8)) * torch.stack((scale, scale), -2)).flatten(-2)

    return attend(q, scaled(k, k_scale), scaled(v, v_scale))


def columns(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, k * k_scale[:, :, :1].expand(-1, -1, -1, 16).contiguous(), v * v_scale)


def double(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, (k * k_scale.double()).float(), v * v_scale)


def larger(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, k[:1] * k_scale, v * v_scale)


def unsigned(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    return attend(q, k.to(torch.uint8) * k_scale, v * v_scale)


def exact_last(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    """As torchao's cache does: the state of the newest token is as it was before rounding."""
    keys, values = k * k_scale, v * v_scale
    keys[:, :, -1] = q[:, :2, -1]
    return attend(q, keys, values)


def overwritten(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    keys, values = k * k_scale, v * v_scale
    k.zero_()
    return attend(q, keys, values)


def overwritten_by_a_view(
    q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor
) -> Tensor:
    view = v_scale[:, :, :5]
    keys, values = k * k_scale, v * v_scale[:]
    view.zero_()
    return attend(q, keys, values)


def joined(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
    """As transformers' `QuantizedCache` does: the newest tokens are as they were."""
    return attend(q, torch.cat((k * k_scale, q[:, :2]), 2), torch.cat((v * v_scale, q[:, :2]), 2))


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (zero_points, "mul is no product of int8 numbers and scales"),
        (one_alone, "mul_1 is no product of int8 numbers and scales"),
        (groups, "flatten is no product of int8 numbers and scales"),
        (columns, "contiguous (2, 2, 1, 16) has more than one scale for a row"),
        (double, "double is torch.float64"),
        (larger, "getitem (1, 2, 70, 16) has not the shape of mul"),
        (unsigned, "mul is no product of int8 numbers and scales"),
        (exact_last, "setitem may write to keys before it is read"),
        (overwritten, "zero_ may write to l_k_ before it is read"),
        (overwritten_by_a_view, "zero_ may write to getitem_1 before it is read"),
        (joined, "cat is no product of int8 numbers and scales"),
    ],
)
@torch.no_grad()
def test_what_is_dequantized(run: Callable[..., Tensor], why: str) -> None:
    args = inputs(torch.float32, torch.float32, 20, (2, 2, 70, 1), (2, 2, 70, 1))
    assert dequantized(run, *args) == why


@torch.no_grad()
def test_choices_look_at_keys() -> None:
    def run(q: Tensor, k: Tensor, k_scale: Tensor, v: Tensor, v_scale: Tensor) -> Tensor:
        return attend(q, k * k_scale, v * v_scale)

    args = inputs(torch.float32, torch.float32, 70)
    plain = sc.Compiler(attention="window(9)")
    torch.compile(run, backend=plain)(*args)
    assert "kv=int8" in plain.report.nodes[0].problem
    chosen = sc.Compiler(attention="top_blocks(0.5)")
    torch.compile(run, backend=chosen)(*args)
    assert "int8" not in chosen.report.nodes[0].problem
    reasons = [r.reason for r in chosen.report.graph_reports[0].rewrites]
    why = "its cache is dequantized first: top_blocks(0.5) looks at what the keys hold"
    assert why in reasons


@torch.no_grad()
def test_no_kernel_is_a_reason() -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k * 0.1, v * q.new_ones(1))

    q = torch.randn(1, 2, 5, 16)
    k, v = (torch.ones(1, 2, 5, 16, dtype=torch.int8) for _ in range(2))
    assert dequantized(run, q, k, v) == "mul is no product of int8 numbers and scales"
