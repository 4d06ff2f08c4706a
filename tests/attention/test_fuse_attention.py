"""`fuse_attention`: every spelling becomes a node, which computes what the model does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention.spellings import SPELLINGS, Spelling, repeat_kv
from packing import Packing
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.report.facts import NodeReport
from sparsecompile.testing.laws import assert_no_worse

HEADS, KEYS, WIDTH = 4, 70, 16


def inputs(spelling: Spelling, queries: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    keys = max(KEYS, queries)
    shapes = [(2, HEADS, queries, WIDTH)] + 2 * [(2, spelling.kv_heads, keys, WIDTH)]
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    mask = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    mask[..., 0] = True
    if spelling.name == "two_dimensions":
        mask = mask[:1]
    if spelling.has_mask == "added":
        bias = torch.randn(mask.shape, generator=generator)
        return [q, k, v, torch.where(mask, bias, torch.finfo(dtype).min).to(dtype)]
    return [q, k, v, mask]


def node(run: Callable[..., Any], *args: Any, **options: Any) -> NodeReport:
    """What explain says of the only attention."""
    with torch.no_grad():
        report = sc.explain(run, *args, **options)
    (found,) = (n for n in report.nodes if n.reader == "attention")
    return found


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)
@pytest.mark.parametrize("queries", [1, 20, 70])
@torch.no_grad()
def test_computes_what_the_model_does(spelling: Spelling, queries: int) -> None:
    # In turn: every spelling and every number of queries is with both dtypes.
    dtype = (torch.float32, torch.bfloat16)[(SPELLINGS.index(spelling) + queries) % 2]
    args = inputs(spelling, queries, dtype)
    backend = Packing()
    ours = torch.compile(spelling.run, backend=backend)(*args)
    report = backend.compiler.report
    wide = [t.double() if t.is_floating_point() else t for t in args]
    assert_no_worse(ours, spelling.run(*args), spelling.run(*wide))
    (found,) = report.nodes
    assert found.kernel is not None, found.reason
    # One row of a mask is a vector of keys.
    is_vector = queries == 1 and spelling.mask == "scanned"
    assert found.mask == ("padding" if is_vector else spelling.mask)
    assert found.problem.startswith("attention")
    code = [line for line in report.after.splitlines() if not line.strip().startswith("#")]
    assert not any("softmax" in line or "expand" in line for line in code)


@torch.no_grad()
def test_a_new_length_compiles_nothing() -> None:
    spelling = next(s for s in SPELLINGS if s.name == "repeated")
    backend = sc.Compiler()
    compiled = torch.compile(spelling.run, backend=backend, dynamic=True)
    for queries in (33, 18, 50):
        args = inputs(spelling, queries, torch.float32)
        wide = [t.double() if t.is_floating_point() else t for t in args]
        assert_no_worse(compiled(*args), spelling.run(*args), spelling.run(*wide))
    assert backend.report.graphs == 1


@torch.no_grad()
def test_layers_share_the_scan_of_their_mask() -> None:
    def layers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        for _ in range(3):
            q = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return q

    spelling = next(s for s in SPELLINGS if s.name == "repeated_by_unsqueeze")
    q, _, _, mask = inputs(spelling, 70, torch.float32)
    report = sc.explain(layers, q, q, q, mask)
    assert report.after.count("scanned_tiles(") == 1
    assert report.after.count("sparsecompile.attention") == 3


@torch.no_grad()
def test_torch_keeps_graphs_with_attention() -> None:
    spelling = next(s for s in SPELLINGS if s.name == "grouped")
    counters["aot_autograd"].clear()
    torch.compile(spelling.run, backend="sparse")(*inputs(spelling, 70, torch.float32))
    assert counters["aot_autograd"]["ok"] == 1
    assert not [name for name in counters["aot_autograd"] if "bypass" in name]


def refused(run: Callable[..., Any], *args: Any) -> str:
    """Why an attention was left to torch, which then computes what the model does."""
    backend = sc.Compiler()
    ours = torch.compile(run, backend=backend)(*args)
    torch.testing.assert_close(ours, run(*args))
    (found,) = (n for n in backend.report.nodes if n.reader == "attention")
    assert found.kernel is None
    return found.reason


def three(dtype: torch.dtype = torch.float32, heads: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, 20, 16, generator=generator).to(dtype) for _ in range(3)]


def test_gradients_are_torch_s_own() -> None:
    q, k, v = three()
    q.requires_grad_()
    why = refused(F.scaled_dot_product_attention, q, k, v)
    assert why.startswith("gradients are on, which its kernels do not have: call the model under")
    torch.compile(F.scaled_dot_product_attention, backend="sparse")(q, k, v).sum().backward()
    assert q.grad is not None


@torch.no_grad()
def test_dropout_is_refused() -> None:
    args = three()
    report = sc.explain(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.5), *args)
    (found,) = report.nodes
    assert found.reason == "it drops 0.5 of its weights"


@torch.no_grad()
@pytest.mark.parametrize(
    ("run", "why"),
    [
        (
            lambda q, k, v: F.scaled_dot_product_attention(q[0], k[0], v[0]),
            "q, k and v have 3, 3 and 3 dimensions, not 4",
        ),
        (
            lambda q, k, v: F.softmax(q @ k.mT + torch.ones(20).int(), -1) @ v,
            "torch.int32 numbers are added to its scores",
        ),
        (
            lambda q, k, v: F.softmax(q @ k.mT + torch.ones(20).double(), -1).to(q.dtype) @ v,
            "its mask is torch.float64",
        ),
        (
            lambda q, k, v: F.softmax(q @ k.mT, -2) @ v,
            "its softmax is over dimension -2",
        ),
        (
            lambda q, k, v: F.softmax(q + k, -1) @ v.mT,
            "its scores are l_q_, no product of queries and keys",
        ),
        (
            lambda q, k, v: F.softmax(torch.tanh(q @ k.mT / 5.0) * 4.0, -1) @ v,
            "scores are divided by 5.0 and multiplied by 4.0: no cap",
        ),
        (
            lambda q, k, v: F.softmax((q @ k.mT).masked_fill(q @ k.mT > 0, -1e4), -1) @ v,
            "masked scores are -10000.0, which is not the least torch.float32",
        ),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=-0.5),
            "its scores are scaled by -0.5; kernels need more than 0",
        ),
        (
            lambda q, k, v: F.softmax(q @ k.mT + 1.0, -1) @ v,
            "what is added to its scores is 1.0, no tensor",
        ),
    ],
)
def test_what_is_refused(run: Callable[..., Tensor], why: str) -> None:
    assert refused(run, *three()) == why


@torch.no_grad()
@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        (((1, 4, 0, 16), (1, 4, 20, 16)), "there is nothing in q (1, 4, 0, 16) or k"),
        (((1, 4, 5, 16), (1, 4, 0, 16)), "there is nothing in q (1, 4, 5, 16) or k (1, 4, 0, 16)"),
        (((0, 4, 5, 16), (0, 4, 5, 16)), "there is nothing in q (0, 4, 5, 16)"),
        (((2, 4, 5, 16), (1, 4, 5, 16)), "q (2, 4, 5, 16), k (1, 4, 5, 16) and v (1, 4, 5, 16) do"),
    ],
)
def test_sizes_that_torch_takes_and_kernels_do_not(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], why: str
) -> None:
    q, k = map(torch.ones, shapes)
    assert refused(lambda q, k, v: F.softmax(q @ k.mT, -1) @ v, q, k, k).startswith(why)


@torch.no_grad()
def test_values_with_heads_of_their_own() -> None:
    q, _, v = three()
    (k,) = (t[:, :1] for t in three()[1:2])
    why = refused(lambda q, k, v: F.softmax(q @ k.mT, -1) @ v, q, k, v)
    assert why.endswith("and v (1, 4, 20, 16) do not fit as they are")


@torch.no_grad()
def test_softmax_in_float64_is_torch_s() -> None:
    why = refused(
        lambda q, k, v: F.softmax(q @ k.mT, -1, dtype=torch.float64).to(q.dtype) @ v, *three()
    )
    assert why == "its softmax is in torch.float64; kernels have float32"


@torch.no_grad()
def test_views_of_what_products_return() -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (F.softmax(q @ k.mT, -1) @ v).view(8, 20, 16)

    args = [torch.cat((t, t + 1)) for t in three()]
    backend = sc.Compiler()
    ours = torch.compile(run, backend=backend)(*args)
    assert_no_worse(ours, run(*args), run(*[t.double() for t in args]))
    assert all(node.packed for node in backend.report.nodes)


@torch.no_grad()
def test_weights_that_others_read_are_kept() -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights = F.softmax(q @ k.mT, -1)
        return weights @ v, weights

    report = sc.explain(run, *three())
    (found,) = report.nodes
    assert found.reason == "its weights weights are read by more than one node"


@torch.no_grad()
def test_scores_that_others_read_are_kept() -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        scores = q @ k.mT
        return F.softmax(scores * 2.0, -1) @ v, scores

    (found,) = sc.explain(run, *three()).nodes
    assert found.reason.endswith("is read by output, too")


@torch.no_grad()
def test_keys_that_are_overwritten_in_between_are_repeated_before() -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        repeated, values = repeat_kv(k), repeat_kv(v)
        k.zero_()
        return F.scaled_dot_product_attention(q, repeated, values)

    q, _, _ = three()
    _, k, v = three(heads=2)
    (found,) = sc.explain(run, q, k.clone(), v).nodes
    assert found.reason.startswith("zero_ may write to")
    ours = torch.compile(run, backend="sparse")(q, k.clone(), v)
    torch.testing.assert_close(ours, run(q, k.clone(), v))


@torch.no_grad()
@pytest.mark.parametrize("around", [False, True])
def test_autocast_changes_dtypes(around: bool) -> None:
    """Torch's own attention runs in bfloat16 then, whatever it is given."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.scaled_dot_product_attention(q, k, v)

    if around:
        with torch.autocast("cpu", torch.bfloat16):
            why = refused(F.scaled_dot_product_attention, *three())
    else:
        why = refused(run, *three())
    assert why == "autocast is on: it changes dtypes at run time"


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@torch.no_grad()
def test_transforms_have_no_rules() -> None:
    stacks = [torch.stack([t, t + 1]) for t in three()]
    why = refused(torch.vmap(F.scaled_dot_product_attention), *stacks)
    assert why.startswith("torch.func transforms it (vmap, grad, jvp, ...)")


@torch.no_grad()
def test_other_devices_are_left_alone() -> None:
    args = [t.to("meta") for t in three()]
    compiler = sc.Compiler()
    torch.compile(F.scaled_dot_product_attention, backend=compiler)(*args)
    (found,) = compiler.report.nodes
    assert found.reason == "it is on meta; there are kernels for cpu"


@torch.no_grad()
def test_no_kernel_is_a_reason() -> None:
    args = [t.repeat(1, 1, 1, 40) for t in three()]
    why = refused(F.scaled_dot_product_attention, *args)
    assert re.match("no kernel for attention float32 d=640: .*flash: heads have 640", why)
