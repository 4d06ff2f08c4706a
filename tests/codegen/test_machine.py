"""Limits of the machine: measured once, believed only when they can be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine, cache_sizes, measure_machine
from sparsecompile.errors import SparseCompileError

NAMES = ("cpu", "float32_instruction", "bfloat16_instruction", "int8_instruction")
FOUND = Machine("a CPU", 3, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    """Nothing is remembered from another test."""
    machine._known.clear()
    yield
    machine._known.clear()


@pytest.fixture
def measured(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of threads that were measured; the result is `FOUND`."""
    threads: list[int] = []

    def measure(count: int) -> Machine:
        threads.append(count)
        return replace(FOUND, threads=count)

    monkeypatch.setattr(machine, "_measure", measure)
    return threads


def record(folder: Path) -> Path:
    (path,) = folder.glob("machine-*.json")
    return path


def test_this_machine(cache_folder: Path) -> None:
    found = measure_machine(torch.get_num_threads())
    facts = asdict(found)
    for name in NAMES:
        assert facts.pop(name)
    assert all(value > 0 for value in facts.values())
    assert found.threads == torch.get_num_threads()
    assert found.llc_bytes >= found.l2_bytes
    assert json.loads(record(cache_folder).read_text(encoding="utf-8")) == asdict(found)


def test_a_second_call_measures_nothing(measured: list[int]) -> None:
    first = measure_machine(3)
    assert measure_machine(3) is first
    machine._known.clear()
    assert measure_machine(3) == first
    assert measured == [3]
    assert measure_machine(1).threads == 1
    assert measured == [3, 1]


def test_measuring_again_replaces_the_record(
    cache_folder: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_machine(3)
    better = replace(FOUND, int8_rate=8e11)
    monkeypatch.setattr(machine, "_measure", lambda threads: better)
    assert measure_machine(3) == FOUND
    assert measure_machine(3, again=True) == better
    machine._known.clear()
    assert measure_machine(3) == better


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b"3",
        b"{}",
        json.dumps({**asdict(FOUND), "cores": 1}).encode(),
        json.dumps({**asdict(FOUND), "threads": 4}).encode(),
        json.dumps({**asdict(FOUND), "read_bandwidth": 0.0}).encode(),
        json.dumps({**asdict(FOUND), "int8_rate": "fast"}).encode(),
        json.dumps({**asdict(FOUND), "cpu": 3}).encode(),
    ],
)
def test_a_record_that_cannot_be_one_is_measured_again(
    cache_folder: Path, measured: list[int], damage: bytes
) -> None:
    first = measure_machine(3)
    Cache().write(record(cache_folder).name, damage)
    machine._known.clear()
    assert measure_machine(3) == first
    assert measured == [3, 3]
    machine._known.clear()
    assert measure_machine(3) == first
    assert measured == [3, 3]


def test_a_truncated_record_is_measured_again(cache_folder: Path, measured: list[int]) -> None:
    measure_machine(3)
    os.truncate(record(cache_folder), 20)
    machine._known.clear()
    measure_machine(3)
    assert measured == [3, 3]


def test_no_threads() -> None:
    with pytest.raises(ValueError, match="0 threads cannot be measured"):
        measure_machine(0)


def test_a_system_without_memory_to_spare() -> None:
    asked: list[int] = []

    class Library:
        def sc_read_bandwidth(self, nbytes: int, threads: int, runs: int) -> float:
            asked.append(nbytes)
            return 0.0

    library: Any = Library()
    with pytest.raises(SparseCompileError, match="the system gives no 64 MiB of memory"):
        machine._bandwidth(library, 64 << 20, 1)
    assert asked == [512 << 20, 256 << 20, 128 << 20, 64 << 20]


def test_cache_sizes(tmp_path: Path) -> None:
    assert cache_sizes(tmp_path) == (1 << 20, 32 << 20)
    levels = (("1", "Instruction", "32K"), ("2", "Unified", "2048K"), ("3", "Unified", "105M"))
    for i, facts in enumerate(levels):
        (tmp_path / f"index{i}").mkdir()
        for name, text in zip(("level", "type", "size"), facts, strict=True):
            (tmp_path / f"index{i}" / name).write_text(f"{text}\n")
    (tmp_path / "index9").mkdir()
    assert cache_sizes(tmp_path) == (2 << 20, 105 << 20)
