"""The op `asked_mask`, in Python: it runs once in a prefill for all layers that share a pattern.

`asked_mask(q, k, own, pattern)`: the layout of the `BlockMask` of what both the model's own mask
and a pattern keep: `q` `[b, h, s, d]` and `k` `[b, hk, t, d]`, of which patterns read the sizes
alone; `own` the layout of the own mask's `BlockMask` or a view of its header, None for all keys;
`pattern` as `number_of` has it. See `kept_keys` for where the queries are.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sparsecompile.kernels.ops import NAMESPACE, define
from sparsecompile.masks.block_mask import FEW_QUERIES, HEADER_BYTES, BlockMask
from sparsecompile.masks.build import build
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.full import Full
from sparsecompile.masks.given import Given
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.predicate import Predicate
from sparsecompile.operators.attention.asked import for_sizes, named
from sparsecompile.operators.attention.keys import first_position

_library = torch.library.Library(NAMESPACE, "FRAGMENT")


@define
def _asked_mask(q: Tensor, k: Tensor, own: Tensor | None, pattern: int) -> Tensor:
    return q.new_empty((HEADER_BYTES,), dtype=torch.uint8)


def _asked_mask_cpu(q: Tensor, k: Tensor, own: Tensor | None, pattern: int) -> Tensor:
    asked, queries, keys = named(str(pattern)), q.shape[2], k.shape[2]
    memory = None if own is None else own.new_empty(0).set_(own.untyped_storage())
    if isinstance(asked, Predicate):
        given, grid = _given(memory, queries, keys)
        layout = _built(given, for_sizes(asked, q.shape[0], q.shape[1]), grid)
    elif isinstance(asked, Choice):
        given, grid = _given(memory, queries, keys)
        is_few = queries <= FEW_QUERIES
        layout = _built(given, Full() if is_few else asked.pattern(q, k, given, grid), grid)
    else:
        known = None if memory is None else memory.numpy().tobytes()
        # Graphs may use the memory of what an op has returned again.
        layout = _shared(asked, queries, keys, known).clone()
    return layout[:HEADER_BYTES]


_library.impl("asked_mask", _asked_mask_cpu, "CPU")


@lru_cache(maxsize=8)
def _shared(pattern: MaskPattern, queries: int, keys: int, own: bytes | None) -> Tensor:
    """A pattern with a text reads nothing: for the same own tiles its own are the same."""
    memory = None if own is None else torch.frombuffer(bytearray(own), dtype=torch.uint8)
    given, grid = _given(memory, queries, keys)
    return _built(given, pattern, grid)


def _given(own: Tensor | None, queries: int, keys: int) -> tuple[MaskPattern, Grid]:
    """What the model's mask keeps, and where queries and keys are."""
    if own is None:
        return Full(), Grid(queries, keys, max(0, keys - queries))
    given = Given(BlockMask.of_layout(own))
    b, h, q, kv = Grid(queries, keys).places(given.batch, given.heads)
    first = int(first_position(given.keeps(b, h, q[-1:], kv), queries))
    return Given(given.mask, first), Grid(queries, keys, first)


def _built(own: MaskPattern, pattern: MaskPattern, grid: Grid) -> Tensor:
    both = own & pattern
    return build(grid, both.batch, both.heads, both.tiles, both.keeps).layout()
