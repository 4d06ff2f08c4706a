"""`sparsecompile bench attention`, at sizes that say nothing about speed."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sparsecompile.bench.attention import lengths, run, worker
from sparsecompile.bench.attention.cases import AttentionCase, attention_cases, window_case
from sparsecompile.bench.attention.inputs import bytes_of_keys
from sparsecompile.bench.attention.lengths import LengthRow, bench_lengths, line_of
from sparsecompile.bench.attention.run import AttentionRow, bench_attention
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine, read_bandwidth
from sparsecompile.commands.app import app
from sparsecompile.errors import SparseCompileError

MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")
DECODE = AttentionCase("a", "decode", "cache", 1, 4, 2, 16, 40, 30, layers=2)
STORED = replace(DECODE, stored="int8")
CROSS = AttentionCase("b", "cross", "full", 1, 4, 4, 16, 33, 33)
BIASED = AttentionCase("c", "encoder", "bias", 2, 2, 2, 16, 20, 20)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder as current directory, on a machine that needs no measuring."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ("bench", "attention", *words))


def test_decode_says_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read_bandwidth", lambda nbytes, threads: 1e6 * nbytes)
    rows = bench_attention([DECODE, CROSS], MACHINE, rounds=1, started=lambda case: None)
    names = ["sparse", "sdpa, its mask", "sdpa, no mask"]
    assert [row.candidate for row in rows] == 2 * names
    assert bytes_of_keys(DECODE) == 2 * 2 * 30 * 16 * 4 * 2
    assert bytes_of_keys(CROSS) == 2 * 4 * 33 * 16 * 4
    for row in rows:
        kept = bytes_of_keys(DECODE if row.case == str(DECODE) else CROSS)
        assert row.kv_gb_per_s == pytest.approx(kept / row.ms / 1e6)
        assert row.read_share == pytest.approx(1e-3 / row.ms)
        assert row.difference < 4


def test_the_bytes_of_a_cache_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read_bandwidth", lambda nbytes, threads: 1e6 * nbytes)
    rows = bench_attention([STORED], MACHINE, rounds=1, started=lambda case: None)
    assert {row.case for row in rows} == {"decode a 30/40 x2 kv=int8 float32"}
    assert bytes_of_keys(STORED) == 2 * 2 * 30 * (16 + 4) * 2
    assert [row.kernel for row in rows] == ["flash", "", ""]
    assert all(row.difference < 4 for row in rows)


def test_scores_to_which_something_is_added() -> None:
    rows = bench_attention([BIASED], MACHINE, rounds=1, started=lambda case: None)
    assert [row.candidate for row in rows] == ["sparse", "sdpa, its mask", "flex"]
    assert all(row.difference < 4 for row in rows)
    assert {(row.kv_gb_per_s, row.read_share) for row in rows} == {(0, 0)}
    assert rows[0].gflops == pytest.approx(4 * 2 * 2 * 20 * 20 * 16 / rows[0].ms / 1e6)


def test_reading_memory() -> None:
    assert 1e8 < read_bandwidth(1 << 20, 1) < 1e13
    with pytest.raises(SparseCompileError, match=r"reading .* bytes cannot be measured"):
        read_bandwidth(1 << 60, 1)


def test_the_grid() -> None:
    found = attention_cases("*", grid=True)
    assert len(found) == len(set(map(str, found))) == 40
    assert {case.dtype for case in found} == {"float32", "bfloat16", "float16"}
    assert {case.kind for case in found} == {"decode", "cross", "prefill", "encoder"}
    masks = {case.mask.partition("(")[0] for case in found}
    assert masks == {"cache", "full", "causal", "window", "padding", "bias"}
    assert {case.dtype for case in attention_cases("*", "float16", grid=True)} == {"float16"}
    assert {case.dtype for case in attention_cases("decode*")} == {"float32", "bfloat16"}


def row(case: str, candidate: str, speedup_best: float) -> AttentionRow:
    numbers = dict.fromkeys(("ms", "mad", "speedup", "gflops", "gb_per_s", "kv_gb_per_s"), 1.0)
    numbers |= {"read_share": 0.5, "difference": 1.0, "speedup_best": speedup_best}
    counts: dict[str, Any] = {"samples": 1, "dropped": 0}
    return AttentionRow(
        *("a CPU", 2, "2", "1", ""),
        case=case,
        candidate=candidate,
        kernel="",
        **numbers,
        **counts,
    )


@pytest.mark.parametrize("is_lost", [True, False])
def test_the_verdict(is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        row("a", "sparse", 0.96 if is_lost else 0.98),
        row("a", "sdpa, its mask", 0.5),
        row("b", "sparse", 1.5),
    ]
    monkeypatch.setattr(run, "bench_attention", lambda *_, **__: found)
    result = bench("--grid", "--check", "--json", "out.json")
    assert result.exit_code == is_lost
    *_, lost, least = result.stdout.splitlines()
    if is_lost:
        assert lost == "slower than the best of torch's: a, 0.96x"
        assert least == "the least of 2 over the best of torch's: 0.96x, a"
    else:
        assert lost == "nowhere slower than the best of torch's"
    assert json.loads(Path("out.json").read_text())["rows"][0]["read_share"] == 0.5


def test_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "_measured", fake_measured)
    rows = bench_lengths([4, 8], ["float32"], MACHINE, rounds=3, started=lambda what: None)
    assert [(r.tokens, r.candidate) for r in rows] == [
        (n, name) for n in (4, 8) for name in ("sparse", "sdpa, its mask")
    ]
    result = bench("--lengths", "4,8", "--json", "out.json", "--csv", "out.csv")
    assert result.exit_code == 0, result.exception
    assert result.stdout.splitlines()[-2:] == [
        "sparse, float32: 2e+03 us a token, R^2 1.0000",
        "sparse, bfloat16: 2e+03 us a token, R^2 1.0000",
    ]
    assert len(json.loads(Path("out.json").read_text())["rows"]) == 8
    assert result.stderr.splitlines()[0] == "prefill h8d64 window(256) 4 float32: sparse"


def fake_measured(
    tokens: int, dtype: str, candidate: str, rounds: int, threads: int
) -> dict[str, Any]:
    own = candidate == "sparse"
    ms = 2.0 * tokens + 3 if own else 1.0 * tokens**2
    return {"dtype": dtype, "tokens": tokens, "candidate": candidate, "ms": ms, "peak_mb": 1.0}


def test_what_is_not_on_a_line() -> None:
    def at(tokens: int, ms: float) -> LengthRow:
        return LengthRow(*("a CPU", 2, "2", "1", ""), "float32", tokens, "sparse", ms, 0.0)

    line = line_of([at(0, 0.0), at(1, 1.0), at(2, 0.0), at(3, 1.0)])
    assert line.us_per_token == pytest.approx(200)
    assert line.r_squared == pytest.approx(0.2)


def test_a_process_of_its_own() -> None:
    (own, torchs) = bench_lengths([70], ["float32"], MACHINE, rounds=2, started=lambda what: None)
    assert (own.tokens, own.dtype, own.candidate) == (70, "float32", "sparse")
    assert own.ms > 0 < torchs.ms
    assert 0 <= own.peak_mb < 100


def test_the_peak_of_memory() -> None:
    before = worker.forget_peak()
    kept = torch.ones(50_000_000, dtype=torch.uint8)
    del kept
    assert worker.peak_bytes() - before > 40_000_000
    assert worker.forget_peak() - before < 40_000_000


def test_a_system_that_does_not_say_its_peak(tmp_path: Path) -> None:
    with pytest.raises(SparseCompileError, match=r"the peak of memory cannot be measured here: "):
        worker.forget_peak(tmp_path / "none")


def test_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*words: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, -9, "", "")

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(SparseCompileError, match=r"4 float32: sparse ended with exit status -9; "):
        bench_lengths([4], ["float32"], MACHINE, rounds=1, started=lambda what: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dtype", "int8"), "--dtype 'int8' is none of float32, bfloat16 and float16"),
        (("--case", "nothing"), "no case matches 'nothing'; there are: decode smollm2 128/2048"),
        (("--lengths", "4096"), "--lengths '4096' names no two numbers of tokens"),
        (("--lengths", "4096,x"), "--lengths '4096,x' names no two numbers of tokens"),
    ],
)
def test_errors_are_said_before_anything_is_measured(words: tuple[str, str], message: str) -> None:
    result = bench(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")


def test_a_prompt_with_a_window() -> None:
    assert str(window_case(8192, "bfloat16")) == "prefill h8d64 window(256) 8192 bfloat16"
