"""Damaged archives of a cache folder, and those of another machine: nothing is imported."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparsecompile.codegen import archive
from sparsecompile.codegen.cache import Cache
from sparsecompile.commands.app import app
from sparsecompile.errors import CacheError

NAME = "answer-0123456789abcdef0123.so"
Members = dict[str, bytes]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def written(cache_folder: Path, tmp_path: Path) -> tuple[Path, Members]:
    """An archive of one entry, and its members."""
    Cache().write(NAME, b"a library")
    file = tmp_path / "kernels.tar.gz"
    archive.export_cache(file)
    with tarfile.open(file) as members:
        found = {m.name: (members.extractfile(m) or io.BytesIO()).read() for m in members}
    Path(cache_folder / NAME).unlink()
    return file, found


def write(file: Path, members: Members) -> None:
    with tarfile.open(file, "w:gz") as written:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            written.addfile(member, io.BytesIO(content))


def with_manifest(members: Members, **changes: object) -> Members:
    manifest = json.loads(members[archive.MANIFEST])
    return {**members, archive.MANIFEST: json.dumps({**manifest, **changes}).encode()}


def test_another_machine_or_version_is_named(
    written: tuple[Path, Members], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = written
    facts = archive._facts()
    words = facts["CPU"].split()
    other = {**facts, "CPU": " ".join((*words[1:], "amx_x")), "torch": "1.0"}
    monkeypatch.setattr(archive, "_facts", lambda: other)
    before = sorted(cache_folder.iterdir())
    result = run("cache", "import", str(file))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {file} is of another kind of machine or version, nothing was imported: "
        f"CPU: {words[0]} there, amx_x here; torch: {facts['torch']} there, 1.0 here. Fill a cache "
        "folder on a machine like this one, and export that\n"
    )
    monkeypatch.setattr(archive, "_facts", lambda: {**facts, "CPU": " ".join(words[1:])})
    differs = f"CPU: {words[0]} there, nothing else here. Fill"
    with pytest.raises(CacheError, match=differs) as caught:
        archive.import_cache(file)
    assert caught.value.path == file
    assert sorted(cache_folder.iterdir()) == before


def without_entries(members: Members, others: dict[str, str]) -> Members:
    """The manifest alone, which names others."""
    changed = with_manifest(members, entries=others)
    return {archive.MANIFEST: changed[archive.MANIFEST]}


def outside(members: Members) -> Members:
    return {**members, f"../{NAME}": b"a library"}


def elsewhere(members: Members) -> Members:
    digest = hashlib.sha256(b"ssh").hexdigest()
    return {**without_entries(members, {"authorized_keys": digest}), "authorized_keys": b"ssh"}


def in_a_folder(members: Members) -> Members:
    name = f"a-/../../{NAME}"
    digest = hashlib.sha256(b"a library").hexdigest()
    return {**without_entries(members, {name: digest}), name: b"a library"}


def changed(members: Members) -> Members:
    return {**members, NAME: b"another library"}


def added(members: Members) -> Members:
    return {**members, NAME.replace("0123", "3210"): b"one more"}


def left_out(members: Members) -> Members:
    return {name: content for name, content in members.items() if name != NAME}


def without_manifest(members: Members) -> Members:
    return {NAME: members[NAME]}


def not_json(members: Members) -> Members:
    return {**members, archive.MANIFEST: b"{"}


def without_facts(members: Members) -> Members:
    return with_manifest(members, facts={})


def empty(members: Members) -> Members:
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, f"../{NAME} is no entry of a cache folder"),
        (in_a_folder, f"a-/../../{NAME} is no entry of a cache folder"),
        (elsewhere, "authorized_keys is no entry of a cache folder"),
        (changed, f"{NAME} is not what was written"),
        (added, "is not what was written"),
        (left_out, f"{NAME} is missing"),
        (without_manifest, "its first member is not a manifest"),
        (not_json, "Expecting property name"),
        (without_facts, "'CPU'"),
        (empty, "its first member is not a manifest"),
    ],
)
def test_a_file_that_was_changed_imports_nothing(
    written: tuple[Path, Members],
    cache_folder: Path,
    change: Callable[[Members], Members],
    message: str,
) -> None:
    file, members = written
    write(file, change(members))
    before = sorted(cache_folder.parent.rglob("*"))
    result = run("cache", "import", str(file))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    start, end = f"error: {file} is no archive of a cache folder, or damaged: ", "cache export`\n"
    assert result.stderr.startswith(start)
    assert message in result.stderr
    assert result.stderr.endswith(
        f"; nothing was imported, write it again with `sparsecompile {end}"
    )
    assert sorted(cache_folder.parent.rglob("*")) == before


def test_a_link_is_no_entry(written: tuple[Path, Members], cache_folder: Path) -> None:
    file, members = written
    with tarfile.open(file, "w:gz") as linked:
        manifest = tarfile.TarInfo(archive.MANIFEST)
        manifest.size = len(members[archive.MANIFEST])
        linked.addfile(manifest, io.BytesIO(members[archive.MANIFEST]))
        link = tarfile.TarInfo(NAME)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        linked.addfile(link)
    with pytest.raises(CacheError, match=f"{NAME} is no entry of a cache folder"):
        archive.import_cache(file)
    assert not (cache_folder / NAME).exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_off_imports_nothing(
    share: float, cache_folder: Path, tmp_path: Path
) -> None:
    Cache().write(NAME, os.urandom(100_000))
    file = tmp_path / "kernels.tar.gz"
    archive.export_cache(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    (cache_folder / NAME).unlink()
    with pytest.raises(CacheError, match="is no archive of a cache folder, or damaged: "):
        archive.import_cache(file)
    assert not (cache_folder / NAME).exists()


def test_a_text_is_no_archive(cache_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("On sparse matrices\n")
    with pytest.raises(CacheError, match="is no archive of a cache folder, or damaged: "):
        archive.import_cache(file)


def test_an_entry_that_cannot_be_read(cache_folder: Path, tmp_path: Path) -> None:
    source = cache_folder / Path(NAME).with_suffix(".cpp")
    source.mkdir(parents=True)
    cache_folder.chmod(0o700)
    with pytest.raises(CacheError, match=rf"cannot read {source}: Is a directory"):
        archive.export_cache(tmp_path / "kernels.tar.gz")
    (cache_folder / NAME).mkdir()
    (cache_folder / f"{NAME}.sha256").touch()
    source.rmdir()
    with pytest.raises(CacheError, match=r"cannot read the cache folder .*: Is a directory"):
        archive.export_cache(tmp_path / "kernels.tar.gz")
