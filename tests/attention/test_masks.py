"""BlockMasks that the native library builds: the same bytes as by the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.masks.block_mask import BIASED, FEW_QUERIES, HEADER_BYTES, TILE, BlockMask

OPS = torch.ops.sparsecompile
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module", autouse=True)
def _native() -> None:
    load_native()


def whole(mask: Tensor) -> Tensor:
    """All of the layout behind a header."""
    assert mask.shape == (HEADER_BYTES,)
    return torch.empty(0, dtype=torch.uint8).set_(mask.untyped_storage())


def scanned(mask: Tensor) -> BlockMask:
    """The definition of `scan_mask`."""
    if mask.dtype == torch.bool:
        return BlockMask.of(mask)
    # In float32: a number that a tensor is compared with is rounded to the tensor's dtype.
    kept = mask == 0
    other = ~(kept | (mask.float() <= -60000))
    rows_without = ~kept.any(3, keepdim=True)
    if mask.shape[2] <= FEW_QUERIES:
        is_biased = bool(other.any() or rows_without.any())
        return replace(BlockMask.of(kept | other | rows_without), is_biased=is_biased)
    rows, columns = -(-mask.shape[2] // TILE), -(-mask.shape[3] // TILE)
    biased = torch.zeros(*mask.shape[:2], rows, columns, dtype=torch.bool)
    for i, j in torch.cartesian_prod(torch.arange(rows), torch.arange(columns)):
        row = slice(i * TILE, (i + 1) * TILE)
        tile = other[:, :, row, j * TILE : (j + 1) * TILE]
        biased[:, :, i, j] = tile.flatten(2).any(2) | rows_without[:, :, row].flatten(2).any(2)
    everywhere = biased.repeat_interleave(TILE, 2).repeat_interleave(TILE, 3)
    everywhere = everywhere[:, :, : mask.shape[2], : mask.shape[3]]
    found = BlockMask.of(kept | everywhere)
    row_of = torch.repeat_interleave(torch.arange(len(found.starts) - 1), found.starts.diff())
    of_tile = biased.flatten(0, 2)[row_of, found.tiles.long()]
    kinds = torch.where(of_tile, BIASED, found.kinds).to(torch.int32)
    return replace(found, kinds=kinds, is_biased=bool(of_tile.any()))


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """`[batch, heads, q, kv]` bool: from empty to full, in blocks, in stripes, or by chance."""
    sizes = (1, 2), (1, 2), (1, 2, 15, 16, 17, 64, 65, 130), (1, 5, 63, 64, 65, 128, 200)
    shape = tuple(draw(st.sampled_from(each)) for each in sizes)
    torch.manual_seed(draw(st.integers(0, 2**16)))
    mask = torch.rand(shape) < draw(st.sampled_from((0.0, 0.01, 0.5, 0.99, 1.0)))
    if draw(st.booleans()):
        blocks = torch.rand(*shape[:2], 5, 5) < 0.5
        whole = blocks.repeat_interleave(40, 2).repeat_interleave(40, 3)
        mask &= whole[:, :, : shape[2], : shape[3]]
    if draw(st.booleans()):
        place = torch.arange(shape[3]) - torch.arange(shape[2])[:, None]
        mask |= (place <= 0) & (place > -draw(st.integers(1, 100)))
    if draw(st.booleans()):
        mask[..., int(torch.randint(shape[2], ())), :] = False
    return mask


@given(masks())
def test_scanned_bools(mask: Tensor) -> None:
    assert torch.equal(whole(OPS.scan_mask(mask)), BlockMask.of(mask).layout())


@given(masks(), st.sampled_from(FLOATS), st.integers(0, 3), st.integers(0, 2**16))
def test_scanned_numbers(mask: Tensor, dtype: torch.dtype, others: int, seed: int) -> None:
    torch.manual_seed(seed)
    masked = (-float("inf"), torch.finfo(dtype).min, -60160.0)
    low = torch.tensor(masked)[torch.randint(3, mask.shape)]
    added = torch.where(mask, torch.where(torch.rand(mask.shape) < 0.5, 0.0, -0.0), low).to(dtype)
    values = (1.5, float("nan"), -59904.0, 1e-7)
    for value in values[:others]:
        added.view(-1)[int(torch.randint(added.numel(), ()))] = value
    if others == 3:
        added[..., int(torch.randint(mask.shape[2], ())), :] = values[3]
    assert torch.equal(whole(OPS.scan_mask(added)), scanned(added).layout())


@pytest.mark.parametrize("queries", [3, 70])
def test_masks_that_are_expanded_are_scanned_once(queries: int) -> None:
    mask = torch.rand(1, 1, queries, 90) < 0.5
    for shape in ((4, 1), (1, 3), (4, 3)):
        expanded = mask.expand(*shape, queries, 90)
        assert torch.equal(whole(OPS.scan_mask(expanded)), BlockMask.of(mask).layout())
    padding = (torch.rand(2, 1, 1, 90) < 0.5).expand(2, 5, queries, 90)
    expected = BlockMask.of(padding[:, :1]).layout()
    assert torch.equal(whole(OPS.scan_mask(padding)), expected)
    turned = mask.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(whole(OPS.scan_mask(turned)), BlockMask.of(mask).layout())


@st.composite
def intervals(draw: st.DrawFn) -> tuple[tuple[Tensor | None, ...], int]:
    """Arguments of `interval_mask`: bounds may lie beyond the keys, ids are few."""
    q, kv = (draw(st.sampled_from((1, 5, 16, 17, 64, 130, 200))) for _ in range(2))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    batches = st.sampled_from((1, 2))
    heads, width = draw(batches), draw(st.sampled_from((0, 3, 100, 400)))
    low = torch.randint(-80, kv + 20, (draw(batches), heads, q), dtype=torch.int32)
    if draw(st.booleans()):
        low = (torch.arange(q, dtype=torch.int32) - 30).expand(low.shape)
    high = low[:1] + width
    keep = q_ids = kv_ids = None
    if draw(st.booleans()):
        keep = torch.rand(draw(batches), kv) < draw(st.sampled_from((0.0, 0.5, 1.0)))
    if draw(st.booleans()):
        every = draw(st.sampled_from((1, 50, 70)))
        q_ids = (torch.arange(q) // every).expand(draw(batches), q)
        kv_ids = (torch.arange(kv) // every).expand(draw(batches), kv)
    return (low, high, keep, q_ids, kv_ids), kv


@given(intervals())
def test_intervals(given: tuple[tuple[Tensor | None, ...], int]) -> None:
    (low, high, keep, q_ids, kv_ids), kv = given
    assert low is not None
    assert high is not None
    key = torch.arange(kv)
    mask = (low[..., None] <= key) & (key < high[..., None])
    if keep is not None:
        mask = mask & keep[:, None, None]
    if q_ids is not None and kv_ids is not None:
        mask = mask & (q_ids[:, None, :, None] == kv_ids[:, None, None])
    found = OPS.interval_mask(low, high, keep, q_ids, kv_ids, kv)
    assert torch.equal(whole(found), BlockMask.of(mask).layout())


def test_threads_build_the_same() -> None:
    mask = torch.rand(2, 3, 300, 500) < 0.5
    mask[:, :, :, 100:300] = True
    expected = BlockMask.of(mask).layout()
    threads = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        try:
            assert torch.equal(whole(OPS.scan_mask(mask)), expected)
        finally:
            torch.set_num_threads(threads)


def test_masks_that_cannot_be_scanned() -> None:
    with pytest.raises(RuntimeError, match=r"must be \[batch, heads, q, kv\], not \[3, 4\]"):
        OPS.scan_mask(torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(
        RuntimeError, match="must be bool, float32, bfloat16 or float16, not Double"
    ):
        OPS.scan_mask(torch.zeros(1, 1, 3, 4).double())


def test_intervals_that_do_not_fit() -> None:
    low = torch.zeros(2, 1, 20, dtype=torch.int32)
    keep, ids = torch.ones(2, 30, dtype=torch.bool), torch.zeros(2, 20, dtype=torch.int64)

    def build(
        high: Tensor = low, keep: Tensor | None = None, *ids: Tensor | None, low: Tensor = low
    ) -> None:
        q_ids, kv_ids = ids or (None, None)
        OPS.interval_mask(low, high, keep, q_ids, kv_ids, 30)

    with pytest.raises(
        RuntimeError, match=r"low of a mask must be Int with 3 dimensions, not Long"
    ):
        build(low=low.long())
    with pytest.raises(RuntimeError, match=r"high of a mask must be Int .*, not Int \[20\]"):
        build(low[0, 0])
    with pytest.raises(RuntimeError, match=r"high of a mask has 3 batch entries .* another part 2"):
        build(low[:1].expand(3, 1, 20))
    with pytest.raises(
        RuntimeError, match=r"high of a mask has 3 batch entries or heads, .* part 2"
    ):
        build(low[:1].expand(2, 3, 20), low=low.expand(2, 2, 20))
    with pytest.raises(RuntimeError, match=r"\[2, 1, 19\], its last dimension must be 20"):
        build(low[..., :19])
    with pytest.raises(RuntimeError, match=r"keep of a mask has shape .* dimension must be 30"):
        build(low, keep[:, :20])
    with pytest.raises(RuntimeError, match="a mask has ids of queries alone; give both or none"):
        build(low, keep, ids, None)
    with pytest.raises(RuntimeError, match="a mask has ids of keys alone"):
        build(low, keep, None, ids)
    with pytest.raises(RuntimeError, match=r"kv_ids of a mask has shape .* dimension must be 30"):
        build(low, keep, ids, ids)
