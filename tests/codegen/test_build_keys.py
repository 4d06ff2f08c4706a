"""What a library in the cache depends on: each of it changed alone is another library."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from answering import answer

from sparsecompile.codegen.cpp import build as building
from sparsecompile.codegen.cpp import compiler as compilers
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.codegen.private import private_folder
from sparsecompile.kernels.target import Target

TEXT = """
#ifndef SC_A
#define SC_A 0
#endif
extern "C" __attribute__((visibility("default"))) int answer() { return SC_A; }
"""


def build(flags: tuple[str, ...] = ()) -> int:
    return load_built("answer", TEXT, lambda c: (*c.flags(Target.host()), *flags), answer)


@pytest.fixture
def compiler(cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that calls the compiler, whose version is in a file beside it."""
    path, version = tmp_path / "compiler", tmp_path / "version"
    version.write_text("first 1.0\n", encoding="utf-8")
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--version) cat {version};; *) exec c++ "$@";; esac\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return path


def test_words_in_cxx_make_another_library(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build() == 0
    for value in (1, 2):
        monkeypatch.setenv("CXX", f"{compiler} -DSC_A={value} -O0")
        assert build() == value
    monkeypatch.setenv("CXX", str(compiler))
    assert build() == 0


def test_flags_make_another_library(compiler: Path) -> None:
    assert [build((f"-DSC_A={value}",)) for value in (1, 2, 1)] == [1, 2, 1]


def test_words_in_cxx_are_other_limits_of_the_machine(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = machine._entry(1)
    monkeypatch.setenv("CXX", f"{compiler} -O0")
    assert machine._entry(1) != plain


def another_cpu(compiler: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(building, "host_cpu", lambda: "another CPU")


def another_version(compiler: Path, patch: pytest.MonkeyPatch) -> None:
    compiler.with_name("version").write_text("second 2.0\n", encoding="utf-8")
    touch(compiler, 1)


@pytest.mark.parametrize("change", [another_cpu, another_version])
def test_cpu_and_version_make_another_library(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    compiler: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        build()
    assert len(list(cache_folder.glob("answer-*.so"))) == 1
    change(compiler, monkeypatch)
    build()
    assert len(list(cache_folder.glob("answer-*.so"))) == 2


def touch(path: Path, nanoseconds: int) -> None:
    """Make a file so much older."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - nanoseconds))


def grown(path: Path) -> None:
    """Another size at the same moment."""
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def older(path: Path) -> None:
    """The same size at another moment."""
    touch(path, 1)


@pytest.mark.parametrize("change", [grown, older])
def test_a_compiler_that_was_replaced_is_asked_again(
    compiler: Path, change: Callable[[Path], None]
) -> None:
    assert find_compiler().version == "first 1.0"
    compiler.with_name("version").write_text("second 2.0\n", encoding="utf-8")
    assert find_compiler().version == "first 1.0"
    change(compiler)
    assert find_compiler().version == "second 2.0"


def test_what_a_compiler_makes_depends_on_its_version_and_words() -> None:
    compiler = Compiler(("/usr/bin/g++", "-O0", "-m32"), "g++ 14", (), (), ())
    assert compiler.identity == ("g++ 14", "-O0", "-m32")


def test_openmp_is_missed_aloud_and_asked_for_again(
    compiler: Path, caplog: pytest.LogCaptureFixture
) -> None:
    openmp = compiler.with_name("openmp")
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *-fopenmp*) [ -e {openmp} ] || exit 1;; esac\nexec c++ "$@"\n',
        encoding="utf-8",
    )
    assert [find_compiler().openmp for _ in range(2)] == [(), ()]
    (record,) = [r for r in caplog.records if "OpenMP" in r.message]
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"{compiler} has no OpenMP: kernels run on one thread.")
    openmp.touch()
    assert find_compiler().openmp == ("-fopenmp",)


def test_where_nothing_can_be_kept_a_process_asks_once(
    compiler: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    ask = compilers._ask

    def counted(command: tuple[str, ...]) -> Compiler:
        asked.append(command)
        return ask(command)

    monkeypatch.setattr(compilers, "_ask", counted)
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)
    assert find_compiler() == find_compiler()
    assert asked == [(str(compiler),)]
    assert list(cache_folder.iterdir()) == []
    assert private_folder(cache_folder) is None
