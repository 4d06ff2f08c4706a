"""`sparsecompile cache export` and `import`: kernels that move to machines of the same kind."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from answering import build
from typer.testing import CliRunner, Result

from sparsecompile.codegen import archive
from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp import with_torch
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.commands.app import app

NAME = "answer-0123456789abcdef0123.so"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def moved(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Path]:
    """Leave this machine for one with an empty cache folder and no compiler, with the archive."""

    def move() -> Path:
        file = tmp_path / "kernels.tar.gz"
        exported = run("cache", "export", str(file))
        assert exported.exit_code == 0, exported.stderr
        monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(tmp_path / "other"))
        monkeypatch.setenv("CXX", "no-such-compiler")
        return file

    return move


def test_what_one_machine_has_built_another_loads(
    moved: Callable[[], Path], cache_folder: Path, tmp_path: Path
) -> None:
    assert build() == 42
    TuningRecord().add("key", {"m": 1}, {"dense": Timing(1.0, 0.1)})
    (cache_folder / "thesis.txt").write_text("mine")
    (cache_folder / NAME).write_bytes(b"not whole")
    version = find_compiler().version
    file = moved()
    with tarfile.open(file) as members:
        names = [name.partition("-")[0] for name in members.getnames()]
    assert names == ["manifest.json", "answer", "answer", "compiler", "tuning.jsonl"]
    for new in (1, 0):
        result = run("cache", "import", str(file))
        assert result.exit_code == 0, result.stderr
        words = f"3 entries, 0.0 MB, and {new} measurement{'s' * (new != 1)}"
        assert result.stdout == f"{words}, now in {tmp_path / 'other'}\n"
    assert build() == 42
    assert find_compiler().version == version
    assert TuningRecord().timings("key") == {"dense": Timing(1.0, 0.1)}
    (library,) = (tmp_path / "other").glob("answer-*.so")
    assert library.with_suffix(".cpp").read_text().startswith('extern "C"')


def test_the_native_library_is_the_same_wherever_torch_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, where = with_torch._flags(find_compiler()), with_torch._places()
    monkeypatch.setattr(with_torch.torch, "__file__", "/somewhere/else/torch/__init__.py")
    assert with_torch._flags(find_compiler()) == before
    assert with_torch._places() != where
    assert not any("/" in word for word in before)


def test_nothing_is_a_file_too(moved: Callable[[], Path]) -> None:
    file = moved()
    done = run("cache", "import", str(file))
    assert done.stdout.startswith("0 entries, 0.0 MB, and 0 measurements, now in ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "missing.tar.gz"), "cannot read missing.tar.gz: No such file or directory"),
        (("export", "missing/out.tar.gz"), "cannot write missing/out.tar.gz: No such file"),
    ],
)
def test_a_path_that_cannot_be_used(
    words: tuple[str, ...], message: str, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache_folder.parent)
    result = run("cache", *words)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")


def test_a_read_only_folder_takes_nothing(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, record = (cache_folder.parent / name for name in ("kernels.tar.gz", "tuning.jsonl"))
    Cache().write(NAME, b"a library")
    archive.export_cache(file)
    TuningRecord().export(record)
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)
    for words in (("cache", "import", str(file)), ("tune", "import", str(record))):
        result = run(*words)
        assert result.exit_code == 1
        assert result.stderr == (
            f"error: the cache folder {cache_folder} is read-only; set SPARSECOMPILE_CACHE_DIR to "
            "a folder that you can write to, or run this as its owner\n"
        )


def test_help_lists_the_commands() -> None:
    output = run("cache", "--help").output
    assert all(word in output for word in ("--clear", "export", "import"))


def test_clear_deletes_what_killed_processes_left(cache_folder: Path) -> None:
    left = cache_folder / f".{NAME}.abcdefgh"
    Cache().write(NAME, b"a library")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert run("cache", "--clear").exit_code == 0
    assert list(cache_folder.iterdir()) == []
