"""FlashAttention: kept tiles one after the other, for few queries kept rows of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sparsecompile.codegen.cpp.fragment import ELEMENTS
from sparsecompile.codegen.cpp.text import read
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import NoWeight
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.masks.block_mask import FEW_QUERIES
from sparsecompile.operators.attention.cost import cost_of
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

SMALLEST_DIM, LARGEST_DIM = 16, 256
STORED = {torch.int8: "int8_t"}
"""C++ types of keys and values that are not of the queries' dtype."""
HEAD = """\
// {spec}
// template: {name}; schedule: {schedule}; target: {target}
// out = softmax(softcap(q @ k.T * scale) + bias, where the mask allows) @ v; lengths are run-time
// values.
"""
CONSTANTS = """\
namespace {{

using Element = {element};  // of q and out
using Stored = {stored};  // of k and v
constexpr bool is_scaled = !std::is_same_v<Stored, Element>;  // whether rows of these have scales
constexpr int64_t head_dim = {head_dim};    // columns of q and k
constexpr int64_t value_dim = {value_dim};  // columns of v and out
constexpr int64_t groups = {groups};        // heads of q for each of k and v
constexpr bool has_softcap = {has_softcap};

// Schedule.
{choices}

}}  // namespace
"""
FIRST = ("arguments.h", "attention/arguments.h", "prelude.h", "numbers.h", "activations.h")
LOOPS = (
    *("attention/vectors.h", "turn.h", "attention/product.h"),
    *(f"attention/{name}.h" for name in ("mask", "tensors", "careful")),
    *(f"attention/{name}.h" for name in ("scratch", "tiles", "prefill")),
    *(f"attention/{name}.h" for name in ("few_rows", "few_state", "few_block", "few")),
)


class FlashAttention(Template[AttentionSpec]):
    """Online softmax over what the mask keeps; scores never leave the caches.

    Tiles have queries in lanes and keys in rows, so that maxima and sums need no shuffles. Few
    queries meet rows of keys one by one, all heads of a group together: reading these binds.
    """

    name = "flash"
    language = "cpp"
    operator = AttentionSpec.operator

    def supports(self, spec: AttentionSpec, target: Target, registry: Registry) -> None:
        """Return if it has a C++ type, and rows are neither shorter than a vector nor too long.

        Raises:
            Reject: another device or dtype, or sizes of heads out of range.
        """
        if target.device != "cpu":
            raise Reject(f"C++ is for CPUs, not for {target.device}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"attention in {spec.dtype} has no C++ type")
        if spec.kv_dtype not in (None, *STORED):
            raise Reject(f"keys and values in {spec.kv_dtype} have no C++ type")
        for size in (spec.head_dim, spec.value_dim):
            if not SMALLEST_DIM <= size <= LARGEST_DIM:
                raise Reject(
                    f"heads have {size} columns, from {SMALLEST_DIM} to {LARGEST_DIM} are served"
                )

    def schedules(self, spec: AttentionSpec, target: Target) -> Sequence[Schedule]:
        """The only one: below `region_work` multiply-adds a thread, no other thread is woken."""
        return (Schedule.of({"region_work": 1 << 16}),)

    def cost(self, spec: AttentionSpec, schedule: Schedule, weight: NoWeight) -> Cost:
        """That of the keys that are kept."""
        return cost_of(spec, weight.sizes, weight.share)

    def render(
        self, spec: AttentionSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Constants, then the loops; the compiler's flags choose among instructions."""
        choices = (f"constexpr int64_t {name} = {value};" for name, value in schedule.choices)
        constants = CONSTANTS.format(
            element=ELEMENTS[spec.dtype],
            stored=STORED[spec.kv_dtype] if spec.kv_dtype is not None else "Element",
            head_dim=spec.head_dim,
            value_dim=spec.value_dim,
            groups=spec.groups,
            has_softcap=str(spec.softcap).lower(),
            choices="\n".join(choices),
        )
        text = "\n".join(
            (
                HEAD.format(spec=spec, name=self.name, schedule=schedule, target=target),
                *map(read, FIRST),
                constants,
                *map(read, LOOPS),
            )
        )
        kernels = (("sc_attention_few", FEW_QUERIES), ("sc_attention", None))
        name = f"{self.name}_{spec.identifier}_{schedule.tag}"
        return Source(name, "cpp", text, kernels, isa=target.isa)


COMPONENTS = (FlashAttention(),)
