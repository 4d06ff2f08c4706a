"""`options["attention"]`: what is computed is the model with the mask that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attention.spellings import SPELLINGS, repeat_kv
from packing import Packing
from torch import Tensor
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.operators.attention.asked import asked_for, remember
from sparsecompile.operators.attention.keys import kept_keys
from sparsecompile.testing.laws import assert_no_worse

BY_NAME = {spelling.name: spelling.run for spelling in SPELLINGS}
Run = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def drawn(queries: int, keys: int, kv_heads: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = [(2, 4, queries, 16)] + 2 * [(2, kv_heads, keys, 16)]
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    mask = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    mask[..., 0] = True
    return [q, k, v, mask]


def padded_eager(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Causal, with padding on the left: masks are added, and some queries have no key."""
    place = torch.arange(q.shape[2])
    kept = (place <= place[:, None]) & keep[:, None, None]
    mask = torch.where(kept, 0.0, torch.finfo(q.dtype).min)
    weights = torch.matmul(q, repeat_kv(k).transpose(2, 3)) * 0.25 + mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, repeat_kv(v))


def padded_and_capped(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    place = torch.arange(q.shape[2])
    kept = (place <= place[:, None]) & keep[:, None, None]
    mask = torch.where(kept, 0.0, torch.finfo(q.dtype).min)
    scores = torch.tanh(torch.matmul(q, repeat_kv(k).mT) * 0.25 / 5.0) * 5.0
    return torch.matmul(F.softmax(scores + mask, dim=-1), repeat_kv(v))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """With an explicit mask."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if not cap:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    scores = cap * torch.tanh(q @ k.mT * scale / cap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def check(
    run: Run, args: list[Tensor], own: Tensor, text: str, scale: float, cap: float = 0
) -> str:
    """What is compiled is the model with the pattern as its mask; how the report calls that."""
    q, k, v, _ = args
    backend = Packing(attention=text, tune="off")
    with torch.no_grad():
        ours = torch.compile(run, backend=backend)(*args)
    name = remember(asked_for(text))
    mask = kept_keys(q, k, own, False, name)
    rows = mask.any(-1).expand(q.shape[:3])
    assert rows.any()
    assert not ours[~rows].any()
    eager = dense(q, k, v, mask, scale, cap)
    exact = dense(q.double(), k.double(), v.double(), mask, scale, cap)
    assert_no_worse(ours[rows], eager[rows], exact[rows])
    (node,) = backend.compiler.report.nodes
    assert node.kernel is not None, node.reason
    assert node.lossy == f"attention {asked_for(text)}"
    return node.mask


@pytest.mark.parametrize(
    ("spelling", "kv_heads", "own", "scale"),
    [
        ("plain", 4, "", 0.25),
        ("grouped", 2, "causal & ", 0.25),
        ("repeated", 2, "scanned & ", 0.25),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["window(9)", "window(9) + global(2)", "top_blocks(0.2)"],
)
def test_computes_the_model_with_that_mask(
    spelling: str, kv_heads: int, own: str, scale: float, text: str
) -> None:
    args = drawn(150, 150, kv_heads)
    mask = torch.ones(1, 1, 150, 150, dtype=torch.bool)
    mask = args[3] if spelling == "repeated" else mask.tril() if own else mask
    shown = f"({text})" if own and "+" in text else text
    assert check(BY_NAME[spelling], args, mask, text, scale) == own + shown


@pytest.mark.parametrize("text", ["window(9) + global(2)", "clusters(4)", "top_blocks(0.2)"])
@pytest.mark.parametrize("spelling", ["plain", "repeated"])
def test_one_query(spelling: str, text: str) -> None:
    """For which nothing is chosen."""
    args = drawn(1, 150, 4 if spelling == "plain" else 2)
    mask = args[3] if spelling == "repeated" else torch.ones(1, 1, 1, 150, dtype=torch.bool)
    own = "padding & " if spelling == "repeated" else ""
    shown = f"({text})" if own and "+" in text else text
    assert check(BY_NAME[spelling], args, mask, text, 0.25) == own + shown


@pytest.mark.parametrize(("run", "cap"), [(padded_eager, 0), (padded_and_capped, 5.0)])
@pytest.mark.parametrize("text", ["window(9)", "strided(8)"])
def test_added_masks_with_padding(run: Run, cap: float, text: str) -> None:
    q, k, v, _ = drawn(70, 70, 2)
    keep = torch.ones(2, 70, dtype=torch.bool)
    keep[1, :20] = False
    own = torch.ones(70, 70, dtype=torch.bool).tril() & keep[:, None, None]
    found = check(run, [q, k, v, keep], own, text, 0.25, cap)
    assert found == f"causal & padding & {text}"


@torch.no_grad()
def test_a_predicate() -> None:
    q, k, v, _ = drawn(70, 70)

    def every_third(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (q - kv) % (3 + h) == 0

    backend = sc.Compiler(attention=every_third, tune="off")
    ours = torch.compile(BY_NAME["plain"], backend=backend)(q, k, v, k)
    place = torch.arange(70)
    mask = (place[:, None] - place) % (3 + torch.arange(4))[:, None, None] == 0
    exact = dense(q.double(), k.double(), v.double(), mask, 0.25, 0)
    assert_no_worse(ours, dense(q, k, v, mask, 0.25, 0), exact)
    (node,) = backend.report.nodes
    assert node.mask == "predicate[every_third]"
    assert node.lossy == "attention predicate[every_third]"


@torch.no_grad()
def test_a_new_length_compiles_nothing() -> None:
    backend = sc.Compiler(attention="window(9) + global(2)", tune="off")
    compiled = torch.compile(BY_NAME["plain"], backend=backend)
    name = remember(asked_for("window(9) + global(2)"))
    for queries, keys in ((33, 70), (80, 80), (12, 90)):
        q, k, v, mask = drawn(queries, keys)
        for tensor in (q, k, v, mask):
            torch._dynamo.mark_dynamic(tensor, 2)
        kept = kept_keys(q, k, None, False, name)
        exact = dense(q.double(), k.double(), v.double(), kept, 0.25, 0)
        assert_no_worse(compiled(q, k, v, mask), dense(q, k, v, kept, 0.25, 0), exact)
    assert backend.report.graphs == 1


@torch.no_grad()
def test_layers_share_tiles_where_nothing_is_chosen() -> None:
    def layers(q: Tensor, mask: Tensor) -> Tensor:
        for _ in range(3):
            q = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return q

    q, _, _, mask = drawn(70, 70)
    for text, count in (("window(9) + global(2)", 1), ("top_blocks(0.5)", 3)):
        report = sc.explain(layers, q, mask, attention=text)
        assert report.after.count("scanned_tiles(") == 1
        assert report.after.count(" = sparsecompile_operators_attention_asked_tiles") == count


@torch.no_grad()
def test_biases_are_refused() -> None:
    q, k, v, _ = drawn(70, 70)
    bias = torch.randn(1, 1, 70, 70)
    run = BY_NAME["with_bias"]
    report = sc.explain(run, q, k, v, bias, attention="window(9)", tune="off")
    (node,) = report.nodes
    assert node.mask == "scanned, added"
    assert not node.lossy
    assert node.reason.startswith(
        "without window(9), which is asked for: its mask is added to the scores, and may add more "
        "than what drops keys: "
    )
    assert node.reason.endswith("; a pattern goes with masks that only drop keys")
    assert "without window(9), which is asked for" in " ".join(str(report).split())
    with pytest.raises(sc.RejectedError, match="without window"):
        sc.explain(run, q, k, v, bias, attention="window(9)", strict=True)
