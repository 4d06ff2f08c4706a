"""Kernels of attention, at every level of instructions: the error ratio law, and where NaN goes."""

from __future__ import annotations

import pytest
import torch
from attention_cases import (
    CODEGEN,
    DIMS,
    GROUPS,
    HOST,
    LEVELS,
    WAKES,
    AttentionCase,
    CallCase,
    Inputs,
    attend,
    built,
    calls,
    cases,
    check_law,
    exact,
)
from kernel_cases import DTYPES, drawn

from sparsecompile.kernels.spec import Schedule
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.testing import assert_no_worse

NAN = float("nan")
OWN = [
    AttentionCase(HOST.isa, AttentionSpec(dtype, *dims, groups))
    for dtype, dims, groups in (
        (torch.float32, (64, 64), 2),
        (torch.bfloat16, (64, 64), 3),
        (torch.float16, (20, 40), 1),
    )
]
STORED = [
    AttentionCase(isa, AttentionSpec(dtype, 64, 80, 3, kv_dtype=torch.int8))
    for isa, dtype in ((HOST.isa, torch.bfloat16), (LEVELS[0], torch.float32))
]
"""Of int8, with terms that are pairs and with such as are not."""


def test_the_cases_leave_nothing_out() -> None:
    found = {fact for case in cases() for fact in case.facts()}
    assert {(a, b) for a in LEVELS for b in (*DTYPES, *DIMS)} < found
    assert {(a, torch.int8) for a in (*LEVELS, *DTYPES, *DIMS)} < found
    assert {(a, f"groups={b}") for a in (*LEVELS, *DTYPES, *DIMS) for b in GROUPS} < found


@pytest.mark.parametrize("case", drawn(cases(), 8))
def test_kernels(case: AttentionCase) -> None:
    kernel = built(case)
    for call in calls():
        check_law(case, kernel, call)


@pytest.mark.parametrize("case", OWN, ids=str)
def test_tiles_serve_any_number_of_queries(case: AttentionCase) -> None:
    kernel = built(case, "sc_attention")
    for call in calls():
        if call.queries <= 16:
            check_law(case, kernel, call)


@pytest.mark.parametrize("case", OWN, ids=str)
@pytest.mark.parametrize("queries", [1, 7, 130])
@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_what_is_not_attended_to_leaves_no_trace(
    case: AttentionCase, queries: int, value: float
) -> None:
    """NaN and infinities in keys and values reach queries that attend to these, and no others."""
    kernel = built(case)
    call = CallCase(queries, 197, "random", torch.float32, "contiguous", 2)
    given = Inputs.of(case.spec, call)
    assert given.allowed is not None
    clean, known = attend(given, kernel), exact(given, case.spec.groups)
    size = given.v.abs().max()
    # The whole first value, and one number of a key: rows that attend to neither are as they were.
    given.v[0, 0, 5] = value
    given.k[1, -1, 66, 3] = value
    got, groups = attend(given, kernel), case.spec.groups
    v_seen, k_seen = given.allowed[0, 0, :, 5], given.allowed[1, 0, :, 66]
    for batch, head in torch.cartesian_prod(torch.arange(2), torch.arange(given.q.shape[1])):
        ours, before, right = (each[batch, head] for each in (got, clean, known))
        if batch == 0 and head < groups:
            assert torch.equal(~ours.isfinite().all(-1), v_seen)
            assert_no_worse(ours[~v_seen], before[~v_seen], right[~v_seen], scale=size)
            if value != value:
                assert bool(ours[v_seen].isnan().all())
            else:
                assert bool((ours[v_seen] == value).all())
        elif batch == 1 and head >= given.q.shape[1] - groups:
            assert_no_worse(ours[~k_seen], before[~k_seen], right[~k_seen], scale=size)
            if value != value:
                assert torch.equal(ours.isnan().all(-1), k_seen)
            else:
                # A score of inf less itself is NaN, and weights of -inf are zero.
                signs = given.q[batch, head, :, 3] * value > 0
                assert torch.equal(ours.isnan().all(-1), k_seen & signs)
        else:
            assert torch.equal(ours, before)


@pytest.mark.parametrize("case", STORED, ids=str)
@pytest.mark.parametrize("symbol", ["", "sc_attention"])
def test_kernels_of_int8(case: AttentionCase, symbol: str) -> None:
    """Every call, of which each kind occurs with every other; few queries with tiles, too."""
    for call in calls():
        if not symbol or call.queries <= 16:
            check_law(case, built(case, symbol), call)


@pytest.mark.parametrize("case", STORED, ids=str)
@pytest.mark.parametrize("queries", [1, 7, 130])
@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_scales_that_are_not_finite_reach_who_attends_to_their_rows(
    case: AttentionCase, queries: int, value: float
) -> None:
    kernel = built(case)
    given = Inputs.of(case.spec, CallCase(queries, 197, "random", torch.float32, "cache", 2))
    assert given.allowed is not None
    assert given.k_scale is not None
    assert given.v_scale is not None
    clean = attend(given, kernel)
    known, size = exact(given, 3), (given.v * given.v_scale).abs().max()
    given.v_scale[0, 0, 5] = value
    given.k_scale[1, -1, 66] = value
    got = attend(given, kernel)
    v_seen, k_seen = given.allowed[0, 0, :, 5], given.allowed[1, 0, :, 66]
    assert torch.equal(~got[0, :3].isfinite().all(-1), v_seen.expand(3, -1))
    scores = given.q[1, 3:] @ given.k[1, -1, 66].to(given.q.dtype) * value
    is_nan = scores.isnan() | (scores == float("inf"))
    assert torch.equal(got[1, 3:].isnan().all(-1), k_seen & is_nan)
    assert torch.equal(got[0, 3:], clean[0, 3:])
    assert torch.equal(got[1, :3], clean[1, :3])
    for head in range(3):
        ours, before, right = (each[0, head, ~v_seen] for each in (got, clean, known))
        assert_no_worse(ours, before, right, scale=size)
        ours, before, right = (each[1, 3 + head, ~k_seen] for each in (got, clean, known))
        assert_no_worse(ours, before, right, scale=size)


@pytest.mark.parametrize("case", OWN, ids=str)
@pytest.mark.parametrize("queries", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_all_keys_are_masked_by_finite_numbers_all_count_alike(
    case: AttentionCase, queries: int, dtype: torch.dtype
) -> None:
    call = CallCase(queries, 150, "none", torch.float32, "contiguous", 1)
    given, least = Inputs.of(case.spec, call), torch.finfo(dtype).min
    bias = torch.where(torch.rand(2, 1, queries, 150) < 0.5, 0.0, least).to(dtype)
    bias[:, :, queries // 2] = least
    mask = torch.ops.sparsecompile.scan_mask(bias)
    got = attend(Inputs(given.q, given.k, given.v, None, bias, mask), built(case))
    uniform = given.v.float().mean(2).repeat_interleave(case.spec.groups, 1)
    tolerance = torch.finfo(case.spec.dtype).eps
    torch.testing.assert_close(
        got[:, :, queries // 2].float(), uniform, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("queries", [3, 40])
def test_no_keys_and_no_queries(queries: int) -> None:
    """Rows without a key are zeros."""
    kernel = built(OWN[0])
    given = Inputs.of(OWN[0].spec, CallCase(queries, 9, "none", torch.float32, "contiguous", 2))
    none = Inputs(given.q, given.k[:, :, :0], given.v[:, :, :0], None, None, None)
    assert torch.equal(attend(none, kernel), torch.zeros(2, 4, queries, 64))
    masked = BlockMask.of(torch.zeros(1, 1, queries, 9, dtype=torch.bool)).layout()
    nothing = Inputs(given.q, given.k, given.v, None, None, masked)
    assert torch.equal(attend(nothing, kernel), torch.zeros(2, 4, queries, 64))
    assert attend(
        Inputs(given.q[:, :, :0], *([given.k, given.v]), None, None, None), kernel
    ).shape == (*(2, 4, 0, 64),)


def test_kept_keys_may_be_anywhere() -> None:
    """One query, its keys scattered over words: all states of threads are merged."""
    for case in OWN:
        kernel = built(case)
        for seed in range(3):
            torch.manual_seed(seed)
            for threads in (1, 2, 3, 5):
                call = CallCase(1 + seed, 1000, "sparse", torch.float32, "cache", threads)
                check_law(case, kernel, call)


def test_threads_stay_asleep_where_there_is_little_to_do() -> None:
    """By the schedule of kernels that are not for tests."""
    (schedule,) = built(OWN[0]).template.schedules(OWN[0].spec, HOST)
    assert schedule == Schedule.of({"region_work": 1 << 16})
    kernel = built(OWN[0], schedule=schedule)
    assert kernel.key != built(OWN[0], schedule=WAKES).key
    for queries in (1, 130):
        check_law(OWN[0], kernel, CallCase(queries, 197, "causal", torch.float32, "cache", 5))


def test_a_call_may_be_served_by_a_kernel() -> None:
    kernel = built(OWN[0])
    given = Inputs.of(OWN[0].spec, CallCase(20, 30, "none", torch.float32, "contiguous", 1))
    CODEGEN.serve(123456, kernel)
    got = torch.ops.sparsecompile.attention(given.q, given.k, given.v, None, None, 0.3, 0.0, 123456)
    assert torch.equal(got, attend(given, kernel))
