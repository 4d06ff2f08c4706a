"""Torch's own attention, called without a mask that says no more: a candidate like any kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attention.spellings import repeat_kv
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F
from torch.torch_version import TorchVersion
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.libraries import flex
from sparsecompile.kernels.target import Target
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.operators.operator import Operator
from sparsecompile.report.facts import NodeReport
from sparsecompile.testing.laws import assert_no_worse

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def places(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(key <= query)[None, None])


def added(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    mask = torch.where(key <= query, 0.0, -torch.inf).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    scores = q @ repeat_kv(k, 2).transpose(2, 3) * q.shape[3] ** -0.5
    mask = torch.where(key <= query, 0.0, -torch.inf).to(q.dtype)
    weights = F.softmax(scores + mask, dim=-1, dtype=torch.float32).to(q.dtype)
    return weights @ repeat_kv(v, 2)


def repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, repeat_kv(k, 2), repeat_kv(v, 2))


def repeated_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = repeat_kv(k, 2), repeat_kv(v, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=key > query - 10_000)


def windowed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(key <= query) & (key > query - 9))


def behind_a_cache(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=key <= query + 3)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.tanh(q @ k.transpose(2, 3) / 5.0) * 5.0
    return F.softmax(scores, dim=-1) @ v


def tensors(
    groups: int = 1, queries: int = 40, keys: int = 40, width: int = 16, dtype: str = "float32"
) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 4, queries, width)] + 2 * [(2, 4 // groups, keys, width)]
    return [torch.randn(shape).to(getattr(torch, dtype)) for shape in shapes]


def chosen(backend: sc.Compiler) -> NodeReport:
    (node,) = backend.report.nodes
    assert node.kernel is not None, node.reason
    return node


@pytest.fixture
def fastest(tuned: Tuned) -> Tuned:
    """Torch's own function, without a mask, wins."""
    tuned.seconds = lambda name, rows: {"sdpa": 1.0, "dense": 3.0}.get(name, 2.0)
    return tuned


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("width", [16, 40, 128])
@pytest.mark.parametrize(
    ("run", "groups", "is_causal"),
    [
        (causal, 1, True),
        (added, 1, True),
        (products, 2, True),
        (repeated, 2, False),
        (repeated_causal, 2, True),
    ],
)
@torch.no_grad()
def test_it_serves_where_it_is_faster(
    run: Run, groups: int, is_causal: bool, width: int, dtype: str, fastest: Tuned
) -> None:
    backend, inputs = sc.Compiler(tune="fast"), tensors(groups, width=width, dtype=dtype)
    ours = torch.compile(run, backend=backend)(*inputs)
    assert_no_worse(ours, run(*inputs), run(*(t.double() for t in inputs)))
    node = chosen(backend)
    assert node.kernel is not None
    assert node.kernel.ranges == ("any m: sdpa",)
    assert (node.kernel.template, node.kernel.source) == ("sdpa", "")
    assert {t.candidate: (t.chosen, t.is_baseline) for t in node.trials} == {
        "sdpa": (True, False),
        "flash region_work=65536 sc_attention": (False, False),
        "torch": (False, True),
    }
    call = f"None, {width**-0.5}, 0.0, {is_causal}, 'sdpa, grouped')"
    assert call in backend.report.after
    assert "tiles" not in backend.report.after


@pytest.mark.parametrize("queries", [7, 60])
@torch.no_grad()
def test_the_first_query_is_at_the_first_key(queries: int, fastest: Tuned) -> None:
    """However many keys there are behind the last one."""
    backend, inputs = sc.Compiler(tune="fast"), tensors(queries=queries, keys=50)
    ours = torch.compile(causal, backend=backend)(*inputs)
    assert_no_worse(ours, causal(*inputs), causal(*(t.double() for t in inputs)))
    assert "'sdpa, grouped'" in backend.report.after


@torch.no_grad()
def test_a_new_length_compiles_nothing(fastest: Tuned) -> None:
    backend = sc.Compiler(tune="fast")
    compiled = torch.compile(causal, backend=backend)
    for length in (40, 23, 70):
        inputs = tensors(queries=length, keys=length)
        for tensor in inputs:
            torch._dynamo.mark_dynamic(tensor, 2)
        exact = causal(*(t.double() for t in inputs))
        assert_no_worse(compiled(*inputs), causal(*inputs), exact)
    assert backend.report.graphs == 1
    assert chosen(backend).kernel is not None
    assert "'sdpa, grouped'" in backend.report.after


@pytest.mark.parametrize(
    ("run", "groups"), [(windowed, 1), (behind_a_cache, 1), (plain, 1), (full, 1), (capped, 1)]
)
@torch.no_grad()
def test_it_takes_no_part_where_it_says_something_else_or_is_what_the_model_calls(
    run: Run, groups: int, fastest: Tuned
) -> None:
    backend, inputs = sc.Compiler(tune="fast"), tensors(groups)
    ours = torch.compile(run, backend=backend)(*inputs)
    assert_no_worse(ours, run(*inputs), run(*(t.double() for t in inputs)))
    assert [t.label for t in chosen(backend).trials] == ["flash sc_attention", "torch"]


@torch.no_grad()
def test_a_mask_that_is_no_pattern_is_measured_without_what_has_no_name(tuned: Tuned) -> None:
    def halved(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key = places(q, k)
        mask = (key < query // 2 + 1) & (key > query - 9)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    backend, inputs = sc.Compiler(tune="full"), tensors()
    ours = torch.compile(halved, backend=backend)(*inputs)
    assert_no_worse(ours, halved(*inputs), halved(*(t.double() for t in inputs)))
    assert chosen(backend).mask == "window(9) & keys before (query) // 2 + 1"
    assert {t.label for t in chosen(backend).trials} == {"flash sc_attention", "torch"}


@torch.no_grad()
def test_where_the_model_is_faster_it_stays_as_it_is(tuned: Tuned) -> None:
    tuned.dense_wins()
    report = sc.explain(causal, *tensors(), tune="fast")
    (node,) = report.nodes
    assert node.reason.startswith("torch is faster: m=40 1e+03 ms, ")
    assert "torch 1e+03 ms" in str(report)


@torch.no_grad()
def test_a_mask_that_keeps_all_keys_is_not_read_as_it_was_not_measured(tuned: Tuned) -> None:
    tuned.dense_wins()
    backend, inputs = sc.Compiler(tune="fast"), tensors()
    ours = torch.compile(full, backend=backend)(*inputs)
    assert_no_worse(ours, full(*inputs), full(*(t.double() for t in inputs)))
    assert f"None, {16**-0.5}, 0.0, False, 'sdpa')" in backend.report.after


@torch.no_grad()
def test_on_gpus_kernels_serve_unless_it_was_measured(tuned: Tuned) -> None:
    (node,) = sc.explain(causal, *tensors(dtype="bfloat16"), target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.template == "triton_flash"
    assert tuned.measured == []


needs_flex = pytest.mark.skipif(
    TorchVersion(torch.__version__) < flex.FIRST_TORCH, reason="an older torch"
)


def around(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(query - key).abs() <= 5)


def chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    query, key = places(q, k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=query // 8 == key // 8)


@pytest.mark.slow
@needs_flex
@pytest.mark.parametrize(
    ("run", "pattern", "queries", "dtype", "groups"),
    [
        (windowed, "causal & window(9)", 150, "float32", 1),
        (windowed, "causal & window(9)", 40, "bfloat16", 1),
        (products, "causal", 150, "float16", 2),
        (around, "around(5)", 131, "float32", 1),
        (chunked, "chunked(8)", 150, "bfloat16", 1),
    ],
)
@torch.no_grad()
def test_flex_attention(
    run: Run, pattern: str, queries: int, dtype: str, groups: int, tuned: Tuned
) -> None:
    tuned.seconds = lambda name, rows: {"flex": 1.0, "dense": 3.0}.get(name, 2.0)
    backend, inputs = sc.Compiler(tune="full"), tensors(groups, queries, 150, 32, dtype)
    ours = torch.compile(run, backend=backend)(*inputs)
    assert_no_worse(ours, run(*inputs), run(*(t.double() for t in inputs)))
    node = chosen(backend)
    assert node.kernel is not None
    assert node.kernel.ranges == ("any m: flex",)
    assert f"{32**-0.5}, '{pattern}')" in backend.report.after


@pytest.mark.slow
@needs_flex
@torch.no_grad()
def test_flex_attention_is_measured_as_inductor_compiles_it() -> None:
    inputs = tensors(queries=150, keys=150, dtype="bfloat16")
    (node,) = sc.explain(windowed, *inputs, tune="full").nodes
    assert {t.label for t in node.trials} == {"flash sc_attention", "flex", "torch"}
    assert node.dropped == ()


@needs_flex
@torch.no_grad()
def test_flex_attention_that_does_not_compile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> Tensor:
        raise TorchDynamoException("no compiler")

    monkeypatch.setattr(flex.torch, "compile", lambda *_, **__: failing)
    problem, sample = next(
        (problem, sample)
        for problem, sample in sc.default_registry().get(Operator, "attention").examples()
        if ("mask", "causal") in problem.details
    )
    static = replace(problem, tune="full", rows=(40,), layout_rows=(40,), is_dynamic=False)
    lowering = sc.Compiler().device.lower({static: lambda: sample})[static]
    assert lowering.kernel is not None
    assert lowering.dropped == (("flex", "m=40: no compiler"),)
    assert {t.label for t in lowering.trials} == {"flash sc_attention", "sdpa", "torch"}


@needs_flex
@torch.no_grad()
def test_flex_attention_is_for_a_full_search(tuned: Tuned) -> None:
    for run, tune, takes_part in (
        (windowed, "fast", False),
        (windowed, "full", True),
        (behind_a_cache, "full", False),
        (capped, "full", False),
    ):
        tuned.measured.clear()
        tuned.record().clear()
        torch._dynamo.reset()
        torch.compile(run, backend=sc.Compiler(tune=tune))(*tensors())
        ((_, names),) = tuned.measured
        assert ("flex" in names) == takes_part


@pytest.mark.parametrize("name", ["sdpa", "flex"])
def test_what_they_refuse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extern = sc.default_registry().get(sc.Extern, name)
    spec = AttentionSpec(torch.float32, 64, 64, softcap=True)
    with pytest.raises(sc.Reject, match=r"caps no scores|scores without a cap"):
        extern.supports(spec, Target.host())
    with pytest.raises(sc.Reject, match=r"reads no torch\.int8"):
        extern.supports(AttentionSpec(torch.float32, 64, 64, kv_dtype=torch.int8), Target.host())
    if name == "flex":
        with pytest.raises(sc.Reject, match="called on CPUs, not on cuda"):
            extern.supports(AttentionSpec(torch.float32, 64, 64), Target.parse("sm_90"))
        monkeypatch.setattr(torch, "__version__", "2.13.0")
        with pytest.raises(sc.Reject, match=r"of torch 2\.13\.0 .* one tensor; that of 2\.14 does"):
            extern.supports(AttentionSpec(torch.float32, 64, 64), Target.host())
