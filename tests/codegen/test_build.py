"""Builds: what is kept of them, and everything that can go wrong with a compiler."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from answering import TEXT, build, flags, libraries

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.errors import BuildError


def script(folder: Path, body: str) -> str:
    path = folder / "compiler.sh"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_builds_once_and_keeps_the_source(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", script(tmp_path, f'echo run >> {log}\nexec c++ "$@"'))
    assert build() == 42
    runs = log.read_text(encoding="utf-8").count("run")
    assert build() == 42
    assert log.read_text(encoding="utf-8").count("run") == runs
    assert stat.S_IMODE(cache_folder.stat().st_mode) == 0o700
    (library,) = libraries(cache_folder)
    assert library.with_suffix(".cpp").read_text(encoding="utf-8") == TEXT
    assert not [p for p in cache_folder.iterdir() if p.name.startswith(".")]


def test_no_compiler(cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"apt install g\+\+.*environment variable CXX") as caught:
        build()
    assert caught.value.source is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX names 'no-such-compiler', which is no program"):
        build()


def test_no_compiler_but_what_one_has_built(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build() == 42
    there = find_compiler()
    with monkeypatch.context() as patch:
        patch.delenv("CXX", raising=False)
        patch.setenv("PATH", str(tmp_path))
        assert find_compiler().identity == there.identity
        assert build() == 42
        wanted = (
            rf"apt install g\+\+.*\. answer-\w+ is not in the cache folder {cache_folder}, which "
        )
        with pytest.raises(BuildError, match=wanted) as caught:
            build(TEXT + "// not there\n")
    assert str(caught.value).endswith(f" {there.version}")
    assert caught.value.source is None
    assert len(libraries(cache_folder)) == 1
    body = 'case "$1" in --version) echo another 1.0;; *) exec c++ "$@";; esac'
    monkeypatch.setenv("CXX", script(tmp_path, body))
    assert build() == 42
    assert len(libraries(cache_folder)) == 2
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler().version == "another 1.0"


def test_a_compiler_that_does_not_run(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", script(tmp_path, "echo no licence >&2; exit 3"))
    with pytest.raises(BuildError, match=r"--version failed with exit status 3") as caught:
        build()
    assert "no licence" in caught.value.stderr
    broken = tmp_path / "broken"
    broken.write_text("not a program", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(BuildError, match="cannot be run"):
        build()


def test_a_compiler_that_fails(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'case "$1" in --version) echo fake 1.0;; *) echo "cannot do it" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", script(tmp_path, body))
    with pytest.raises(BuildError, match="the C\\+\\+ compiler failed") as caught:
        build()
    error = caught.value
    assert error.source is not None
    assert error.source.read_text(encoding="utf-8") == TEXT
    assert str(error.source) in str(error)
    assert "cannot do it" in error.stderr
    assert not libraries(cache_folder)


def test_an_error_in_the_source(cache_folder: Path) -> None:
    with pytest.raises(BuildError, match=r"answer-.*error: ") as caught:
        build("nonsense\n")
    assert caught.value.source is not None
    assert caught.value.source.exists()


def test_a_library_that_cannot_be_loaded_after_building(cache_folder: Path) -> None:
    with pytest.raises(BuildError, match=r"was built but cannot be loaded: .*answer"):
        build("int other() { return 1; }\n")


@pytest.mark.parametrize("damage", ["truncated", "no digest", "other content", "other symbol"])
def test_a_corrupt_entry_is_built_again(cache_folder: Path, damage: str) -> None:
    assert build() == 42
    (library,) = libraries(cache_folder)
    if damage == "truncated":
        # A new file: this process has the old one in its memory.
        half = cache_folder / "half"
        half.write_bytes(library.read_bytes()[: library.stat().st_size // 2])
        half.replace(library)
    elif damage == "no digest":
        library.with_name(f"{library.name}.sha256").unlink()
    elif damage == "other content":
        Cache().write(library.name, b"not a library")
    else:
        load_built("other", "int other() { return 1; }\n", flags, Path.read_bytes)
        (other,) = cache_folder.glob("other-*.so")
        Cache().write(library.name, other.read_bytes())
    assert build() == 42
    assert Cache().read(library.name) == library.read_bytes()


def test_what_a_compiler_accepts_is_asked_again_when_the_entry_is_damaged(
    cache_folder: Path,
) -> None:
    first = find_compiler()
    (entry,) = cache_folder.glob("compiler-*.json")
    assert json.loads(entry.read_text(encoding="utf-8"))["version"] == first.version
    entry.write_text("{", encoding="utf-8")
    assert find_compiler() == first


WORKER = """
import ctypes, sys
from pathlib import Path
from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.kernels.target import Target

print("ready", flush=True)
sys.stdin.readline()
load = lambda path: ctypes.CDLL(str(path)).answer()
print(load_built("answer", sys.argv[1], lambda c: c.flags(Target.host()), load))
"""


def test_processes_that_build_at_the_same_time_build_once(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    body = f'case "$*" in *library.so*) echo run >> {log}; sleep 0.3;; esac\nexec c++ "$@"'
    monkeypatch.setenv("CXX", script(tmp_path, body))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, TEXT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n")[0] for process in processes]
    assert outputs == ["42\n", "42\n"]
    assert log.read_text(encoding="utf-8") == "run\n"
