"""What killed processes leave in the cache folder goes; what is in use stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.sweep import HOUR, sweep

AT_WORK = """
import os, sys
from sparsecompile.codegen.cache import Cache

def wait(*_):
    print("writing", flush=True)
    sys.stdin.read()

os.replace = wait
with Cache().scratch() as folder:
    (folder / "library.so").write_bytes(b"half")
    Cache().write("linear-0123456789abcdef0123.so", b"whole")
"""


@pytest.fixture
def process(cache_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has a folder for output, and a file half written."""
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def hidden(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def age(folder: Path) -> None:
    """Make everything older than it may be."""
    for path in folder.iterdir():
        past = path.lstat().st_mtime - HOUR - 1
        os.utime(path, (past, past), follow_symlinks=False)


def use() -> None:
    """Build something, as a process does that has just begun."""
    sweep.cache_clear()
    with Cache().scratch() as folder:
        assert folder.is_dir()


def test_what_a_killed_process_left_goes_after_an_hour(
    process: subprocess.Popen[str], cache_folder: Path
) -> None:
    folder, file = hidden(cache_folder)
    assert (folder / "library.so").read_bytes() == b"half"
    assert file.name.startswith(".linear-0123456789abcdef0123.so.")
    process.kill()
    process.communicate()
    use()
    assert hidden(cache_folder) == [folder, file]
    age(cache_folder)
    use()
    assert hidden(cache_folder) == []


def test_a_folder_stays_as_long_as_its_process_lives(
    process: subprocess.Popen[str], cache_folder: Path
) -> None:
    folder, file = hidden(cache_folder)
    age(cache_folder)
    use()
    assert hidden(cache_folder) == [folder]
    assert (folder / "library.so").exists()
    process.kill()
    process.communicate()
    age(cache_folder)
    use()
    assert hidden(cache_folder) == []
    assert not file.exists()


def test_nothing_else_goes(cache_folder: Path) -> None:
    """The folder may be somebody's home."""
    cache_folder.mkdir(mode=0o700)
    for name in (".bashrc", ".notes-0123456789abcdef0123", "linear-0123456789abcdef0123.so"):
        (cache_folder / name).write_text("mine")
    (cache_folder / ".config").mkdir()
    (cache_folder / ".build-link").symlink_to(cache_folder / ".config")
    (cache_folder / ".build-notes").write_text("mine")
    age(cache_folder)
    before = sorted(cache_folder.iterdir())
    use()
    assert sorted(cache_folder.iterdir()) == before


def test_a_process_looks_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    real = os.scandir

    def scandir(folder: Path) -> object:
        looked.append(folder)
        return real(folder)

    use()
    sweep.cache_clear()
    monkeypatch.setattr(os, "scandir", scandir)
    for _ in range(3):
        with Cache().scratch():
            pass
    assert looked.count(cache_folder) == 1
