"""Torch's attention without a mask, where `is_causal`, or nothing, says what the mask says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import NoWeight
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.operators.attention.cost import cost_of
from sparsecompile.operators.attention.narrowed import kept_detailed
from sparsecompile.operators.attention.node import GROUPED, SDPA, attention
from sparsecompile.operators.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


class Sdpa(InlineExtern[AttentionSpec]):
    """`scaled_dot_product_attention(q, k, v, is_causal=...)`: the node, spelled without its mask.

    Heads that share keys are left to it, too.
    """

    name = "sdpa"
    operator = AttentionSpec.operator

    def supports(self, spec: AttentionSpec, target: Target) -> None:
        """Return for scores as they are, on every device.

        Raises:
            Reject: scores are capped, or keys and values stored in another dtype.
        """
        if spec.kv_dtype is not None:
            raise Reject(f"scaled_dot_product_attention reads no {spec.kv_dtype}")
        if spec.softcap:
            raise Reject("scaled_dot_product_attention caps no scores")

    def fits(self, problem: Problem[AttentionSpec]) -> bool:
        """Whether all keys count, or those up to the query, and the model calls it otherwise."""
        details, groups = dict(problem.details), problem.spec.groups
        kept = kept_detailed(details)
        plain = SDPA if groups == 1 else GROUPED
        is_own = not kept.has_mask and details["spelling"] in (plain, GROUPED)
        return (kept.causal or kept.kind == "none") and not is_own

    def cost(self, spec: AttentionSpec, schedule: Schedule, weight: NoWeight) -> Cost:
        """That of the keys that count."""
        return cost_of(spec, weight.sizes, weight.share)

    def call(
        self, problem: Problem[AttentionSpec], given: Mapping[str, Any]
    ) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        """`attention(q, k, v, None, scale, 0, causal, "sdpa, grouped")`."""
        causal = kept_detailed(dict(problem.details)).causal
        q, k, v, scale = (given[name] for name in ("q", "k", "v", "scale"))
        return attention, (q, k, v, None, scale, 0.0, causal, GROUPED)


COMPONENTS = (Sdpa(),)
