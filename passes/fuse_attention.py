"""`fuse_attention`: however a model spells attention, it becomes one node with grouped heads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import Call, Edit, Match, Phase, Reject, Rule
from sparsecompile.graph.writes import writer_between
from sparsecompile.operators.attention.node import GROUPED, PRODUCTS, SDPA, attention
from sparsecompile.operators.attention.operator import spec_of
from sparsecompile.operators.attention.spellings import (
    CONVERTED,
    MATMUL,
    SOFTMAX,
    scores_of,
    unrepeated,
)
from sparsecompile.operators.attention.unfused import unfused

_VIEWS = ("view", "view_as", torch.Tensor.view)


@dataclass(frozen=True)
class Facts:
    """The arguments of the node."""

    q: Node
    k: Node
    v: Node
    mask: Node | None
    scale: float
    softcap: float
    causal: bool
    spelling: str


@dataclass(frozen=True)
class FuseAttention(Rule[Facts]):
    """`scaled_dot_product_attention(q, repeat(k), repeat(v), mask) -> attention(q, k, v, mask)`.

    And `softmax(q @ repeat(k).T * scale + mask) @ repeat(v)`, with a cap on the scores or without.
    Repeated heads are not made any more. What has gradients or dropout stays as it is, and so does
    what is written in another way: of that the report has the reason.
    """

    name: ClassVar[str] = "fuse_attention"
    phase: ClassVar[Phase] = Phase.FUSE

    def patterns(self) -> Sequence[Call]:
        """Torch's function, and the product of a softmax with values."""
        weights = replace(SOFTMAX, capture="softmax")
        converted = replace(CONVERTED, where={"input": weights})
        return (
            Call(
                (F.scaled_dot_product_attention,),
                ("q", "k", "v", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
                tag="sdpa",
            ),
            Call(MATMUL, ("weights", "v"), {"weights": weights}, tag="products"),
            Call(MATMUL, ("weights", "v"), {"weights": converted}, tag="products"),
        )

    def guard(self, match: Match, edit: Edit) -> Facts:
        """The arguments, of shapes and dtypes that some kernel takes."""
        with edit.considering(match.node, reader="attention"):
            return self._facts(match, edit)

    def _facts(self, match: Match, edit: Edit) -> Facts:
        if scope := edit.weights.scope(match.node):
            raise Reject(scope)
        of_sdpa = match.pattern.tag == "sdpa"
        found = self._of_sdpa(match, edit) if of_sdpa else self._of_products(match, edit)
        if edit.weights.grad:
            raise Reject(
                "gradients are on, which its kernels do not have: call the model under "
                "torch.no_grad()"
            )
        values = q, k, v = edit.value(found.q), edit.value(found.k), edit.value(found.v)
        where = edit.weights.device
        if where is not None and q.device.type != where:
            raise Reject(f"it is on {q.device}; there are kernels for {where}")
        if any(value.dim() != 4 for value in values):
            raise Reject(f"q, k and v have {q.dim()}, {k.dim()} and {v.dim()} dimensions, not 4")
        if len({value.dtype for value in values}) > 1:
            raise Reject(f"q is {q.dtype}, k {k.dtype} and v {v.dtype}; kernels need them equal")
        self._check_sizes(q, k, v, edit)
        if found.scale <= 0:
            raise Reject(f"its scores are scaled by {found.scale:g}; kernels need more than 0")
        if found.mask is not None:
            self._check_mask(found, q, k, edit)
        edit.device.check(spec_of(q, k, v, softcap=found.softcap != 0))
        return found

    def run(self, edit: Edit) -> None:
        """Sweep over the graph, and say of what is left why it is no such node."""
        super().run(edit)
        for softmax, why in unfused(edit):
            with suppress(Reject), edit.considering(softmax, reader="attention"):
                raise Reject(why)
            edit.rejected(self.name, softmax, why)

    def replace(self, match: Match, facts: Facts, edit: Edit) -> None:
        """Insert the node."""
        args = tuple(vars(facts).values())
        node = match.node
        new = edit.call(attention, args, before=node, value=edit.value(node), origins=(node.name,))
        node.replace_all_uses_with(new)
        if any(user.target in _VIEWS for user in new.users) and edit.is_contiguous(new):
            # Kernels have the heads of a query beside each other, of which a view may be none.
            whole = edit.call("contiguous", (new,), before=node)
            new.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not whole)
        edit.discard((node,))

    def _of_sdpa(self, match: Match, edit: Edit) -> Facts:
        if match["dropout_p"] not in (None, 0, 0.0):
            raise Reject(f"it drops {match['dropout_p']} of its weights")
        q, k, v = match["q"], match["k"], match["v"]
        scale = match["scale"]
        if scale is None:
            scale = edit.value(q).shape[-1] ** -0.5
        if not isinstance(scale, float | int):
            raise Reject("its scale varies from call to call")
        spelling = GROUPED if match["enable_gqa"] else SDPA
        causal = bool(match["is_causal"])
        found = Facts(q, k, v, match["attn_mask"], float(scale), 0.0, causal, spelling)
        return found if match["enable_gqa"] else _without_repeats(found, match.node, edit)

    def _of_products(self, match: Match, edit: Edit) -> Facts:
        softmax = match["softmax"]
        if match["dim"] not in (-1, 3):
            raise Reject(f"its softmax is over dimension {match['dim']}")
        if match["dtype"] not in (None, torch.float32):
            raise Reject(f"its softmax is in {match['dtype']}; kernels have float32")
        weights = match.captured["weights"]
        for node in {weights, softmax}:
            if len(node.users) > 1:
                raise Reject(f"its weights {node.name} are read by more than one node")
        scores = scores_of(match["input"], match.node, edit)
        if scores.mask is not None and not edit.value(scores.mask).is_floating_point():
            raise Reject(f"{edit.value(scores.mask).dtype} numbers are added to its scores")
        found = Facts(
            scores.q,
            scores.k,
            match["v"],
            scores.mask,
            scores.scale,
            scores.softcap,
            False,
            PRODUCTS,
        )
        return _without_repeats(found, match.node, edit)

    def _check_sizes(self, q: Tensor, k: Tensor, v: Tensor, edit: Edit) -> None:
        sizes = (*q.shape[1::2], *k.shape[1::2], *v.shape[1::2])
        if not all(isinstance(size, int) for size in sizes):
            raise Reject("the number or the width of its heads varies from call to call")
        fit = zip((*q.shape[:1], *k.shape[:3]), (*k.shape[:1], *v.shape[:3]), strict=True)
        heads, shared, width = q.shape[1], k.shape[1], q.shape[3]
        if (
            any(edit.surely(a != b) for a, b in fit)
            or width != k.shape[3]
            or not shared
            or heads % shared
        ):
            shapes = [tuple(t.shape) for t in (q, k, v)]
            raise Reject(f"q {shapes[0]}, k {shapes[1]} and v {shapes[2]} do not fit as they are")
        if any(edit.surely(size == 0) for size in (*q.shape, *k.shape, *v.shape)):
            raise Reject(f"there is nothing in q {tuple(q.shape)} or k {tuple(k.shape)}")

    def _check_mask(self, found: Facts, q: Tensor, k: Tensor, edit: Edit) -> None:
        mask = edit.value(found.mask)
        if mask.dim() > 4:
            raise Reject(f"its mask has {mask.dim()} dimensions")
        if mask.dtype not in (torch.bool, torch.float32, torch.bfloat16, torch.float16):
            raise Reject(f"its mask is {mask.dtype}")
        ends = (q.shape[2], k.shape[2])
        for size, wanted in zip(mask.shape[-2:], ends, strict=False):
            if not edit.surely(size == wanted) and not edit.surely(size == 1):
                raise Reject(f"its mask {tuple(mask.shape)} may not fit {ends}")


def _without_repeats(found: Facts, node: Node, edit: Edit) -> Facts:
    """With keys and values as they are before each is repeated for its group of queries."""
    k, v = unrepeated(found.k, edit), unrepeated(found.v, edit)
    if k.groups != v.groups or k.groups == 1:
        return found
    for heads in (k, v):
        writer = writer_between(heads.base, heads.copied, node)
        if writer is not None:
            raise Reject(f"{writer.name} may write to {heads.base.name} before it is read")
    return replace(found, k=k.base, v=v.base)


COMPONENTS = (FuseAttention(),)
