"""FlexAttention over the blocks that a pattern of positions keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import _disable_current_modes

from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import NoWeight
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.masks.text import pattern_of
from sparsecompile.operators.attention.cost import cost_of
from sparsecompile.operators.attention.narrowed import kept_detailed
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import default_registry

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from sparsecompile.kernels.cost import Cost

FIRST_TORCH = "2.14"
OPTIONS = {
    "BACKEND": "AUTO",
    "PRESCALE_QK": False,
    "ROWS_GUARANTEED_SAFE": False,
    "BLOCKS_ARE_CONTIGUOUS": False,
    "WRITE_DQ": True,
    "OUTPUT_LOGSUMEXP": False,
    "OUTPUT_MAX": False,
}
"""What torch's function gives the operator on CPUs where only the result is wanted."""


class Flex(InlineExtern[AttentionSpec]):
    """`flex_attention(q, k, v, block_mask=...)`, with `mask_mod` the pattern's own predicate."""

    name = "flex"
    operator = AttentionSpec.operator
    relative_rate = 0.5
    """Inductor compiles it for each shape, which takes it seconds: only a full search does."""

    def supports(self, spec: AttentionSpec, target: Target) -> None:
        """Return for scores as they are, on CPUs.

        Raises:
            Reject: scores are capped, another device, or an old version of torch.
        """
        if spec.kv_dtype is not None:
            raise Reject(f"FlexAttention reads no {spec.kv_dtype}")
        if spec.softcap:
            raise Reject("FlexAttention is called for scores without a cap")
        if target.device != "cpu":
            raise Reject(f"FlexAttention is called on CPUs, not on {target.device}")
        if TorchVersion(torch.__version__) < FIRST_TORCH:
            raise Reject(
                f"FlexAttention of torch {torch.__version__} compiles no q, k and v that are parts "
                f"of one tensor; that of {FIRST_TORCH} does"
            )

    def fits(self, problem: Problem[AttentionSpec]) -> bool:
        """Whether lengths are constants, and positions say which keys count."""
        return not problem.is_dynamic and bool(_pattern(problem))

    def cost(self, spec: AttentionSpec, schedule: Schedule, weight: NoWeight) -> Cost:
        """That of the keys that count."""
        return cost_of(spec, weight.sizes, weight.share)

    def call(
        self, problem: Problem[AttentionSpec], given: Mapping[str, Any]
    ) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        """See `flex`."""
        tensors = (given["q"], given["k"], given["v"])
        return flex, (*tensors, float(given["scale"]), _pattern(problem))

    def run(
        self, problem: Problem[AttentionSpec], given: Mapping[str, Any]
    ) -> Callable[[], Tensor]:
        """As Inductor compiles it, now: what fails is no candidate."""
        from torch.nn.attention.flex_attention import flex_attention

        q, k, v = (given[name] for name in "qkv")
        blocks = blocks_of(_pattern(problem), q.shape[2], k.shape[2])
        options = {"block_mask": blocks, "scale": given["scale"], "enable_gqa": True}
        run = partial(torch.compile(flex_attention, dynamic=False), q, k, v, **options)
        run()
        return run


def flex(q: Tensor, k: Tensor, v: Tensor, scale: float, pattern: str) -> Tensor:
    """FlexAttention as a node of a graph; what Dynamo would trace is called directly.

    Args:
        q: `[batch, heads, queries, d]`.
        k: `[batch, kv heads, keys, d]`.
        v: `[batch, kv heads, keys, dv]`.
        scale: of the products.
        pattern: text of what is kept, with the first query at the first key.
    """
    from torch._higher_order_ops.flex_attention import flex_attention

    # Of tensors that are not traced the blocks get constants of the graph.
    with _disable_current_modes():
        blocks = blocks_of(pattern, int(q.shape[2]), int(k.shape[2])).as_tuple()
        lists = [part.tolist() if isinstance(part, Tensor) else part for part in blocks]
    parts = (_tensor(part) if isinstance(part, list) else part for part in lists)
    found: tuple[Tensor, ...] = flex_attention(q, k, v, _as_it_is, tuple(parts), scale, OPTIONS)
    return found[0]


def blocks_of(pattern: str, queries: int, keys: int) -> BlockMask:
    """Torch's own mask of blocks."""
    from torch.nn.attention.flex_attention import create_block_mask

    found = pattern_of(pattern, default_registry())

    # It takes no bound method.
    def keeps(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return found.keeps(b, h, q, kv)

    return create_block_mask(keeps, None, None, queries, keys, device="cpu")


def _tensor(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _as_it_is(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return score


def _pattern(problem: Problem[AttentionSpec]) -> str:
    return kept_detailed(dict(problem.details)).by_position


COMPONENTS = (Flex(),)
