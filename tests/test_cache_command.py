"""`sparsecompile cache export` and `import`: kernels that move to machines of the same kind."""

from __future__ import annotations

import ctypes
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
from sparsecompile.codegen.cpp import with_torch
from sparsecompile.codegen.cpp.build import load_built
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.commands.app import app
from sparsecompile.errors import CacheError
from sparsecompile.kernels.target import Target

NAME = "answer-0123456789abcdef0123.so"
Members = dict[str, bytes]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def build() -> int:
    text = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'

    def answer(path: Path) -> int:
        result: int = ctypes.CDLL(str(path)).answer()
        return result

    return load_built("answer", text, lambda compiler: compiler.flags(Target.host()), answer)


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


def test_a_read_only_folder_takes_nothing(
    written: tuple[Path, Members], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = written
    record = cache_folder.parent / "tuning.jsonl"
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
