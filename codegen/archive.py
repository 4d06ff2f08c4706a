"""What the cache folder holds as one file, for machines like this one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sysconfig
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.entries import ENTRY
from sparsecompile.codegen.host import host_cpu
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.tuning.measurements import FILE, TuningRecord
from sparsecompile.errors import CacheError

MANIFEST = "manifest.json"
"""The first member: the facts of the machine, and the digest of every other member."""
SOURCE = ".cpp"
"""What is read by people only has no digest in the folder."""


@dataclass(frozen=True)
class Moved:
    """What was written to a file, or taken from one.

    Attributes:
        entries: how many kernels, sources and facts.
        nbytes: how large they are.
        measurements: how many lines of the tuning record, that were not here yet.
    """

    entries: int
    nbytes: int
    measurements: int

    def __str__(self) -> str:
        """`12 entries, 3.4 MB, and 5 measurements`."""
        count = f"{self.measurements} measurement{'s' * (self.measurements != 1)}"
        entries = f"{self.entries} entr{'y' if self.entries == 1 else 'ies'}"
        return f"{entries}, {self.nbytes / 1e6:.1f} MB, and {count}"


def export_cache(path: Path) -> Moved:
    """Write everything that is whole to a file; it appears complete or not at all.

    Raises:
        CacheError: the cache folder cannot be read, or the file not written.
    """
    store, measured = Cache(), TuningRecord().text()
    found = dict(_entries(store))
    if measured:
        found[FILE] = measured.encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    manifest = json.dumps({"facts": _facts(), "entries": digests}, indent=2).encode()
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(draft, "w:gz") as archive:
            for name, content in {MANIFEST: manifest, **found}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        draft.replace(path)
    except OSError as error:
        raise CacheError(path, f"cannot write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return _moved(found, measured.count("\n"))


def import_cache(path: Path) -> Moved:
    """Add what `export_cache` wrote: all of it, or nothing where something is wrong with it.

    What is added gets executed; digests tell damage, not who wrote the file.

    Raises:
        CacheError: the cache folder cannot be written to; or the file cannot be read, is damaged,
            or was written on another kind of machine or by another version.
    """
    store, written, measurements = Cache(), {}, 0
    store.check_writable()
    for _ in _members(path):
        pass
    for name, content in _members(path):
        if name == FILE:
            measurements = TuningRecord(store).merge_text(content.decode())
            continue
        write = store.write_plain if name.endswith(SOURCE) else store.write
        write(name, content)
        written[name] = content
    return _moved(written, measurements)


def _moved(contents: Mapping[str, bytes], measurements: int) -> Moved:
    sizes = [len(content) for name, content in contents.items() if name != FILE]
    return Moved(len(sizes), sum(sizes), measurements)


def _entries(store: Cache) -> Iterator[tuple[str, bytes]]:
    """The entries that are whole, and the sources."""
    folder = store.path("")
    try:
        paths = sorted(p for p in folder.iterdir() if ENTRY.fullmatch(p.name))
        for path in paths:
            content = path.read_bytes() if path.suffix == SOURCE else store.read(path.name)
            if content is not None:
                yield path.name, content
    except FileNotFoundError:
        return
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(folder, f"cannot read {error.filename}: {error.strerror}") from error


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The members behind the manifest, each held against it.

    Raises:
        CacheError: see `import_cache`.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST:
                raise _Damaged("its first member is not a manifest")
            manifest = json.loads(_bytes(archive, first))
            _check_facts(path, manifest["facts"])
            missing = dict(manifest["entries"])
            for member in archive:
                if member.name == MANIFEST:
                    continue
                if not (ENTRY.fullmatch(member.name) and member.isreg()):
                    raise _Damaged(f"{member.name} is no entry of a cache folder")
                content = _bytes(archive, member)
                if missing.pop(member.name, "") != hashlib.sha256(content).hexdigest():
                    raise _Damaged(f"{member.name} is not what was written")
                yield member.name, content
            if missing:
                raise _Damaged(f"{next(iter(missing))} is missing")
    except CacheError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise CacheError(path, f"cannot read {path}: {error.strerror}") from error
        raise _damaged(path, error) from error
    except (_Damaged, tarfile.TarError, EOFError, zlib.error, ValueError, LookupError) as error:
        raise _damaged(path, error) from error


class _Damaged(Exception):  # noqa: N818 - said by what it becomes
    """What is wrong with a file."""


def _damaged(path: Path, error: Exception) -> CacheError:
    return CacheError(
        path,
        f"{path} is no archive of a cache folder, or damaged: {error}; nothing was imported, write "
        "it again with `sparsecompile cache export`",
    )


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise _Damaged(f"{member.name} is no file")
    return file.read()


def _facts() -> dict[str, str]:
    """What everything in the folder depends on but the compiler, which comes with it."""
    return {
        "CPU": host_cpu(),
        "torch": torch.__version__,
        "Python": str(sysconfig.get_config_var("SOABI")),
        "sparsecompile": version("sparsecompile"),
        "sources of sparsecompile": sources_digest(),
    }


def _check_facts(path: Path, theirs: Mapping[str, str]) -> None:
    ours = _facts()
    differ = [_difference(name, theirs[name], ours[name]) for name in ours]
    if any(differ):
        raise CacheError(
            path,
            f"{path} is of another kind of machine or version, nothing was imported: "
            f"{'; '.join(filter(None, differ))}. Fill a cache folder on a machine like this one, "
            "and export that",
        )


def _difference(name: str, there: str, here: str) -> str:
    """`CPU: amx_int8 amx_tile there, nothing else here`; empty where there is none."""
    if there == here:
        return ""
    sides = [
        [w for w in a.split() if w not in b.split()] for a, b in ((there, here), (here, there))
    ]
    alone, others = (" ".join(words) or "nothing else" for words in sides)
    return f"{name}: {alone} there, {others} here"
