"""The `sparsecompile` commands that list what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.codegen.cpp.memory import huge_pages, memory_nodes
from sparsecompile.commands.app import app
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.structure import Structure
from sparsecompile.graph.rule import Pass, order
from sparsecompile.registry import default_registry


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_formats_lists_every_structure_codec_and_decomposition() -> None:
    result = run("formats")
    assert result.exit_code == 0
    registry = default_registry()
    kinds = (Structure, Codec, Decomposition)
    names = [each.name for kind in kinds for each in registry.all(kind)]
    assert all(name in result.stdout for name in names)
    assert "CSR of blocks of `height x width`" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_passes_are_listed_in_the_order_they_run() -> None:
    result = run("passes")
    assert result.exit_code == 0
    names = [p.name for p in order(default_registry().all(Pass))]
    assert [line.split()[0] for line in result.stdout.splitlines() if line.split()[0] in names] == (
        names
    )
    assert result.stdout.startswith("NORMALIZE:\n  positional_arguments  ")
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_cache_shows_and_clears_its_own_files_only(cache_folder: Path) -> None:
    assert run("cache").stdout == f"{cache_folder}: 0 files, 0.0 MB\n"
    stem = f"linear_a-{'0123456789' * 2}"
    cache_folder.mkdir(mode=0o700)
    generated = f"linear_a_{'0123456789' * 2}.py"
    own = (f"{stem}.so", f"{stem}.so.sha256", f"{stem}.cpp", f"{stem}.lock", f"{stem}.cubin")
    for name in (*own, generated, "thesis.cpp"):
        (cache_folder / name).write_bytes(b"x" * 100_000)
    assert run("cache").stdout == f"{cache_folder}: 6 files, 0.6 MB\n"
    assert run("cache", "--clear").stdout == f"{cache_folder}: deleted 6 files, 0.6 MB\n"
    assert [path.name for path in cache_folder.iterdir()] == ["thesis.cpp"]


def test_a_cache_that_others_may_write_to_is_an_error(cache_folder: Path) -> None:
    cache_folder.mkdir()
    cache_folder.chmod(0o777)
    result = run("cache", "--clear")
    assert result.exit_code == 1
    assert "may be written to by others" in result.stderr


def test_version_names_what_kernels_depend_on(cache_folder: Path) -> None:
    result = run("version")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == ["sparsecompile", "torch", "triton", "compiler", "target"]


def test_version_without_a_compiler(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = find_compiler()
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = run("version")
    assert result.exit_code == 0
    assert "CXX names 'no-such-compiler', which is no program" in result.stdout
    filled = f". The cache folder was filled by {there.version}\n"
    assert filled in result.stdout
    run("cache", "--clear")
    assert filled not in run("version").stdout


def test_machine_shows_limits_with_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measure(threads: int, again: bool = False) -> Machine:
        asked.append(threads + 100 * again)
        rates = (1e11, 2e12, 4e12)
        return Machine("a CPU", threads, 2e10, 1e10, 1 << 20, 1 << 25, *rates, "fma", "amx", "vnni")

    monkeypatch.setattr(machine, "measure_machine", measure)
    result = run("machine", "--threads", "3")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "a CPU, 3 threads"
    assert "read bandwidth 20.0 GB/s 3 threads" in lines
    assert "bfloat16 multiply-add 2,000 GFLOP/s amx" in lines
    assert "last-level cache 32 MiB" in lines
    assert f"huge pages {huge_pages()}" in lines
    assert f"memory nodes {memory_nodes()}" in lines
    assert Machine(**json.loads(run("machine", "--json").stdout)) == measure(
        torch.get_num_threads()
    )
    assert run("machine", "--threads", "5", "--again").exit_code == 0
    assert (asked[0], asked[1], asked[-1]) == (3, torch.get_num_threads(), 105)


def test_help_says_what_a_factory_is() -> None:
    assert "explain" in run("--help").stdout
    text = run("explain", "--help").stdout
    assert "FACTORY is a" in text
    assert "    def make():\n" in text
