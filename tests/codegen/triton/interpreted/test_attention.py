"""Attention and its masks in the interpreter: against their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_law import Call, Case, call_of, cases, check_case
from torch import Tensor
from triton_cases import H100

import sparsecompile as sc
from sparsecompile.codegen.triton.attention.block_masks import interval_mask, scan_mask
from sparsecompile.codegen.triton.attention.flash import FlashAttention
from sparsecompile.codegen.triton.attention.start import start_attention
from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.kernels.spec import Schedule
from sparsecompile.masks.block_mask import BIASED, FEW_QUERIES, FULL, HEADER_BYTES, BlockMask
from sparsecompile.operators.attention.ops import most_bytes

FLASH = FlashAttention()
# What the GPU does without a word.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered in:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow encountered in multiply:RuntimeWarning"),
]


def build(case: Case, **choices: int) -> TritonKernel:
    schedule = dict(FLASH.default(case.spec, H100).choices) | choices
    kernel = TritonCodegen().build(
        case.spec, FLASH, Schedule.of(schedule), H100, sc.default_registry()
    )
    assert isinstance(kernel, TritonKernel)
    return kernel


def layout_of(case: Case, call: Call) -> Tensor | None:
    """The mask as the op takes it."""
    if call.low is not None:
        high = torch.arange(case.queries, dtype=torch.int32) + case.keys - case.queries + 1
        return interval_mask(call.low, high[None, None], None, None, None, case.keys, {})
    if case.mask == "listed" and call.mask is not None:
        return BlockMask.of(call.mask).layout()
    if call.mask is not None:
        return scan_mask(call.mask, {})
    return scan_mask(call.bias, {}) if case.mask != "bias" and call.bias is not None else None


def check(case: Case, **choices: int) -> None:
    kernel, scale = build(case, **choices), case.heads[0] ** -0.5

    def run(call: Call) -> Tensor:
        args = (call.q, call.k, call.v, layout_of(case, call), call.bias, scale, case.softcap)
        out = start_attention(kernel, *args, {}, call.k_scale, call.v_scale)
        assert out.transpose(1, 2).is_contiguous()
        return out

    check_case(case, run)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_against_the_definition(case: Case) -> None:
    check(case)


CASE = Case(torch.float32, (40, 24), 3, 0.0, 7, 300, "listed")


@pytest.mark.parametrize("programs", [1, 8, 1024])
def test_keys_are_split_in_any_number_of_parts(programs: int) -> None:
    check(CASE, programs=programs)


@pytest.mark.parametrize("queries", [7, 70])
def test_every_schedule_of_a_search(queries: int) -> None:
    case = replace(CASE, groups=1, queries=queries, keys=130, mask="scanned")
    for schedule in FLASH.search(case.spec, H100):
        check(case, **dict(schedule.choices))


def test_which_function_runs_is_for_the_mask_to_say() -> None:
    kernel = build(CASE)
    (part,) = (each for each in kernel.ranges if each.largest_m is None)
    kernel = TritonCodegen().assemble(
        kernel.spec,
        (TritonCodegen().variant(kernel.spec, FLASH, kernel.schedule, H100, kernel.registry),),
        (part,),
        H100,
        kernel.registry,
    )
    call, scale = call_of(CASE), 40**-0.5
    args = (call.q, call.k, call.v, layout_of(CASE, call), None, scale, 0.0, {})
    torch.testing.assert_close(start_attention(kernel, *args), call.exact(CASE, torch.float32))


@pytest.mark.parametrize("sizes", [(0, 2, 5), (2, 0, 5), (2, 40, 0), (2, 3, 0)])
def test_nothing_to_do(sizes: tuple[int, int, int]) -> None:
    batch, queries, keys = sizes
    case = replace(CASE, queries=queries, keys=keys)
    q = torch.randn(batch, 6, queries, 40)
    k, v = torch.randn(batch, 2, keys, 40), torch.randn(batch, 2, keys, 24)
    mask = scan_mask(torch.ones(1, 1, queries, keys, dtype=torch.bool), {})
    out = start_attention(build(case), q, k, v, mask, None, 1.0, 0.0, {})
    assert out.shape == (batch, 6, queries, 24)
    assert not out.any()


def test_values_that_nobody_reads_may_be_anything() -> None:
    call = call_of(CASE)
    kernel, mask = build(CASE), torch.zeros(2, 1, 7, 300, dtype=torch.bool)
    mask[..., :64] = True
    call.v[:, :, 64:] = torch.nan
    given = replace(call, mask=mask)
    args = (call.q, call.k, call.v, scan_mask(mask, {}), None, 40**-0.5, 0.0, {})
    want = replace(given, v=call.v.nan_to_num()).exact(CASE, torch.float32)
    torch.testing.assert_close(start_attention(kernel, *args), want)


def test_rows_that_are_not_contiguous() -> None:
    call, kernel = call_of(CASE), build(CASE)
    args = (None, None, 40**-0.5, 0.0, {})
    want = start_attention(kernel, call.q, call.k, call.v, *args)
    turned = (t.mT.contiguous().mT for t in (call.q, call.k, call.v))
    assert torch.equal(start_attention(kernel, *turned, *args), want)


def read(layout: Tensor) -> BlockMask:
    """A `BlockMask` out of its layout."""
    form, *shape, total, kept, partial, starts, tiles, kinds, bits, biased = (
        layout[:HEADER_BYTES].view(torch.int64).tolist()[:13]
    )
    batch, heads, queries, keys = shape
    assert total == layout.numel() == most_bytes(*shape)
    assert form == (BlockMask.WORDS if queries <= FEW_QUERIES else BlockMask.TILES)
    rows, columns = batch * heads * -(-queries // 64), -(-keys // 64)
    rows = 0 if queries <= FEW_QUERIES else rows
    lists = [
        layout[begin : begin + 4 * length].view(torch.int32)
        for begin, length in ((starts, rows + 1), (tiles, kept), (kinds, kept))
    ]
    words = layout[bits:].view(torch.int64)
    if queries <= FEW_QUERIES:
        words = words[: partial * columns].view(batch, heads, queries, columns)
    else:
        words = words[: partial * 64].view(partial, 64)
    return BlockMask((batch, heads, queries, keys), *lists, words, bool(biased))


SIZES = [(7, 130), (16, 64), (17, 63), (70, 130), (130, 70), (1, 4200)]


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_scanned_masks(queries: int, keys: int) -> None:
    mask = torch.rand(2, 1, queries, keys) < 0.3
    mask[:, :, :, 64:128] = True
    mask[0, :, : min(64, queries - 1)] = False
    found, want = read(scan_mask(mask, {})), BlockMask.of(mask)
    assert torch.equal(found.dense(), mask)
    assert torch.equal(found.starts, want.starts) or queries <= FEW_QUERIES
    assert torch.equal(found.tiles, want.tiles)
    assert torch.equal(found.kinds == FULL, want.kinds == FULL)
    wide = mask[:1].expand(3, 5, queries, keys)
    assert torch.equal(read(scan_mask(wide, {})).dense(), wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scanned_masks_that_are_added(dtype: torch.dtype) -> None:
    mask = torch.zeros(1, 1, 192, 192, dtype=dtype)
    mask[..., :64, 64:] = torch.finfo(dtype).min
    mask[..., 3, 5] = -torch.inf
    mask[..., 64:128, 64:128] = 0.5
    mask[..., 128, :] = -torch.inf
    found = read(scan_mask(mask, {}))
    assert found.is_biased
    assert found.starts.tolist() == [0, 1, 4, 7]
    assert found.tiles.tolist() == [0, 0, 1, 2, 0, 1, 2]
    # In the last row of tiles is a query of which no key counts as it is.
    kinds = found.kinds.tolist()
    assert kinds[0] >= 0
    assert kinds[1:] == [FULL, BIASED, FULL, BIASED, BIASED, BIASED]
    assert torch.equal(found.dense()[0, 0, :64], mask[0, 0, :64] == 0)


def test_words_of_masks_that_are_added() -> None:
    mask = torch.tensor([[0, 1.5, -60000, -59999, torch.nan], [-60000, -7e4, -torch.inf, -7e4, 0]])
    mask = torch.stack((mask, torch.full((2, 5), -7e4)))[:, None]
    kept = read(scan_mask(mask, {})).dense()
    assert kept[0, 0].tolist() == [[True, True, False, True, True], [False] * 4 + [True]]
    # Of finite numbers alone the softmax is what it is, however small they are.
    assert bool(kept[1].all())


@pytest.mark.parametrize(("queries", "keys"), SIZES[:5])
def test_intervals(queries: int, keys: int) -> None:
    low = torch.randint(0, keys, (1, 2, queries), dtype=torch.int32)
    high = low + torch.randint(-3, 90, (1, 2, queries), dtype=torch.int32)
    key = torch.arange(keys)
    mask = (low[..., None] <= key) & (key < high[..., None])
    assert torch.equal(read(interval_mask(low, high, None, None, None, keys, {})).dense(), mask)
    keep, ids = torch.rand(2, keys) < 0.8, torch.arange(max(queries, keys))[None] // 50
    ids_of = (ids[:, :queries], ids[:, :keys])
    mask = mask & keep[:, None, None] & (ids_of[0][:, None, :, None] == ids_of[1][:, None, None])
    assert torch.equal(read(interval_mask(low, high, keep, *ids_of, keys, {})).dense(), mask)
