"""The folder that holds what is built: who may read and write it, and where it cannot be used."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from answering import TEXT, build, libraries

import sparsecompile as sc
from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.private import make_private, private_folder
from sparsecompile.errors import CacheError


def test_folder_is_the_platforms_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSECOMPILE_CACHE_DIR", raising=False)
    assert Cache().folder.name == "sparsecompile"
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", "~/somewhere")
    assert Cache().folder == Path("~/somewhere").expanduser()


@pytest.mark.parametrize(("chosen", "named"), [("", "of the user"), ("~/cache", "~/cache")])
def test_nobody_has_a_home_directory(
    chosen: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", chosen)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    message = f"the cache folder {named} cannot be found: .*set SPARSECOMPILE_CACHE_DIR to the full"
    with pytest.raises(CacheError, match=message):
        build()
    model = torch.nn.Linear(32, 32).requires_grad_(False)
    model.weight[:, ::2] = 0
    with pytest.warns(RuntimeWarning, match=f"leaves the model dense: {message}"):
        (node,) = sc.explain(model, torch.randn(2, 32)).nodes
    assert not node.packed
    assert "cannot be found" in node.reason


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(file / "cache"))
    with pytest.raises(CacheError, match=r"cannot make .*set SPARSECOMPILE_CACHE_DIR") as caught:
        build()
    assert caught.value.path == file / "cache"


def test_a_folder_that_others_may_write_to(cache_folder: Path) -> None:
    cache_folder.mkdir()
    cache_folder.chmod(0o777)
    with pytest.raises(CacheError, match=r"may be written to by others; run: chmod -R go-w"):
        build()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else(cache_folder: Path) -> None:
    cache_folder.mkdir(mode=0o700)
    os.chown(cache_folder, 1, 1)
    with pytest.raises(CacheError, match=r"belongs to user 1, not to you"):
        build()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    mount = shutil.which("mount")
    if os.getuid() or mount is None:
        pytest.skip("only root can mount a file system")
    words = [mount, "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(small_disk))
    find_compiler()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(1 << 20))
    before = sorted(p.name for p in small_disk.iterdir())
    with pytest.raises(CacheError, match=r"No space left.*has free space"):
        build()
    after = [p for p in small_disk.iterdir() if p.suffix != ".lock"]
    assert sorted(p.name for p in after) == before
    filler.unlink()
    assert build() == 42


def test_a_read_only_folder(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is missing is built for this process alone, with one warning."""
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(small_disk))
    assert build() == 42
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert build() == 42
    assert not caplog.records
    before = sorted(small_disk.iterdir())
    for number in (1, 1, 2):
        assert build(TEXT.replace("42", str(number))) == number
    assert sorted(small_disk.iterdir()) == before
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert f"the cache folder {small_disk} is read-only" in warning.getMessage()
    private = private_folder(small_disk)
    assert private is not None
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert len(libraries(private)) == 2
    store = Cache()
    with pytest.raises(CacheError, match=r"is read-only; set SPARSECOMPILE_CACHE_DIR") as caught:
        store.check_writable()
    assert caught.value.path == small_disk
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_process_alone_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from sparsecompile.codegen.private import make_private, private_folder

made = make_private(Path({str(tmp_path)!r}))
if os.fork() == 0:
    assert private_folder(Path({str(tmp_path)!r})) is None
    raise SystemExit
os.wait()
assert made.is_dir()
print(made)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "is read-only: what it lacks is built" in done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_everything_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(CacheError, match=r"is read-only, and so is everything else: .*set SPARSE"):
        make_private(tmp_path)


OTHERS = """
import json, os, sys
from pathlib import Path
from sparsecompile.codegen.cache import Cache
from sparsecompile.errors import CacheError

for name in sys.argv[1:]:
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            print(Cache(Path(name)).read("entry.json"), flush=True)
        except CacheError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_what_root_made_is_read_by_others_where_they_cannot_write(tmp_path: Path) -> None:
    modes = ((0o755, 0o644), (0o755, 0o600), (0o700, 0o644), (0o755, 0o646), (0o757, 0o644))
    names = [f"{folder:o}-{entry:o}" for folder, entry in modes]
    for name, (folder, entry) in zip(names, modes, strict=True):
        path = Cache(tmp_path / name).write("entry.json", b"content")
        for file in path.parent.iterdir():
            file.chmod(entry)
        path.parent.chmod(folder)
    # They stand in it: the folders around it are root's alone.
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", OTHERS, *names],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    whole, file, folder, open_file, open_folder = done.stdout.splitlines()
    assert whole == "b'content'"
    for line, name in ((file, "755-600"), (folder, "700-644")):
        what = f"cannot read the cache folder {name}: Permission denied; run chmod -R a+rX {name}"
        assert line.startswith(f"{what} as its owner, or set SPARSECOMPILE_CACHE_DIR")
    may = "may be written to by others; run: chmod -R go-w"
    assert open_file.startswith(f"755-646/entry.json in the cache folder {may} 755-646")
    assert open_folder.startswith(f"the cache folder 757-644 {may} 757-644")
