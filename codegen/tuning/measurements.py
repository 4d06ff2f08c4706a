"""TuningRecord: what was measured on this machine, and under which key; in the cache folder."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.host import host_cpu
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.errors import CacheError
from sparsecompile.kernels.spec import digest

logger = logging.getLogger("sparsecompile")
FILE = "tuning.jsonl"
_lines: dict[Path, tuple[tuple[int, ...], Sequence[str]]] = {}
"""What this process has read of a record, and of which state of the file."""


def tuning_key(facts: Mapping[str, object]) -> str:
    """The facts and the sources that kernels are of; and this CPU, where they name no GPU."""
    named = (f"{name}={value}" for name, value in sorted(facts.items()))
    cpu = () if "gpu" in facts else (host_cpu(),)
    return digest(*named, *cpu, sources_digest())


class TuningRecord:
    """A file of JSON lines, one for each problem and m; later lines add to earlier ones.

    A line has `key`, `facts` (what the key was made of, for people), `timings` by candidate, and
    where some were not measured after all, `dropped`, their reasons by candidate. Lines are
    appended whole, so that processes may write at once; lines that cannot be read are passed over.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        self._cache = cache or Cache()

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            CacheError: the cache folder is not the user's own.
        """
        return self._cache.path(FILE)

    @property
    def is_writable(self) -> bool:
        """Whether what is added stays, for other processes."""
        return self._cache.is_writable()

    def entries(self) -> list[dict[str, Any]]:
        """All lines that can be read.

        Raises:
            CacheError: the file cannot be read.
        """
        return list(_parse(self._text()))

    def timings(self, key: str) -> dict[str, Timing]:
        """What was measured under a key, by candidate.

        Raises:
            CacheError: the file cannot be read.
        """
        found: dict[str, Timing] = {}
        for entry in self._under(key):
            found |= {name: Timing(**timing) for name, timing in entry["timings"].items()}
        return found

    def times(self, key: str) -> int:
        """How often something was measured under a key.

        Raises:
            CacheError: the file cannot be read.
        """
        return sum(1 for _ in self._under(key))

    def dropped(self, key: str) -> dict[str, str]:
        """What was not measured under a key after all: reasons by candidate.

        Raises:
            CacheError: the file cannot be read.
        """
        found: dict[str, str] = {}
        for entry in self._under(key):
            found |= entry.get("dropped", {})
        return found

    def _under(self, key: str) -> Iterator[dict[str, Any]]:
        entries = _parse(line for line in self._text() if key in line)
        return (entry for entry in entries if entry["key"] == key)

    def add(
        self,
        key: str,
        facts: Mapping[str, Any],
        timings: Mapping[str, Timing],
        dropped: Mapping[str, str] | None = None,
    ) -> None:
        """Append a line.

        Args:
            key: what it is found by.
            facts: what the key was made of.
            timings: by candidate.
            dropped: why others were not measured, by candidate.

        Raises:
            CacheError: the file cannot be written.
        """
        measured = {name: asdict(timing) for name, timing in timings.items()}
        entry = {"key": key, "facts": dict(facts), "timings": measured}
        self._append([_line({**entry, "dropped": dict(dropped)} if dropped else entry)])

    def merge(self, path: Path) -> int:
        """Append the lines of another record that are not here yet; how many.

        Raises:
            CacheError: a file cannot be read or written, or holds something else.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CacheError(path, f"cannot read the tuning record {path}: {error}") from error
        if text.strip() and not any(_parse(text.splitlines())):
            raise CacheError(path, f"{path} is no tuning record: no line of it can be read")
        return self.merge_text(text)

    def merge_text(self, text: str) -> int:
        """The same with what is in a record.

        Raises:
            CacheError: the record cannot be read or written.
        """
        self._cache.check_writable()
        theirs = [_line(entry) for entry in _parse(text.splitlines())]
        known = set(map(_line, self.entries()))
        new = [line for line in dict.fromkeys(theirs) if line not in known]
        self._append(new)
        return len(new)

    def export(self, path: Path) -> int:
        """Write the lines that can be read to a file, which `merge` takes; how many.

        Raises:
            CacheError: the record cannot be read or the file not written.
        """
        text = self.text()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CacheError(path, f"cannot write {path}: {error.strerror}") from error
        return text.count("\n")

    def text(self) -> str:
        """The lines that can be read.

        Raises:
            CacheError: the record cannot be read.
        """
        return "".join(f"{_line(entry)}\n" for entry in self.entries())

    def clear(self) -> None:
        """Forget everything.

        Raises:
            CacheError: the file cannot be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(self.path, f"cannot delete {self.path}: {error.strerror}") from error

    def _text(self) -> Sequence[str]:
        """Its lines, read again only where the file has changed: a start looks up many keys."""
        path = self.path
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if path not in _lines or _lines[path][0] != stamp:
                text = path.read_text(encoding="utf-8", errors="replace")
                _lines[path] = stamp, tuple(text.splitlines())
            return _lines[path][1]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise CacheError(self.path, f"cannot read {self.path}: {error.strerror}") from error

    def _append(self, lines: Sequence[str]) -> None:
        with self._cache.lock(FILE):
            path = self._cache.appendable(FILE)
            try:
                with path.open("a+b") as file:
                    # What a process that was killed left half written must not spoil the next line.
                    if file.tell() and not _ends_a_line(file):
                        file.write(b"\n")
                    file.write("".join(f"{line}\n" for line in lines).encode())
                path.chmod(0o600)
            except OSError as error:
                raise CacheError(path, f"cannot write {path}: {error.strerror}") from error


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True)


def _parse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
            timings = [Timing(**timing) for timing in entry["timings"].values()]
            known = (
                isinstance(entry["key"], str)
                and isinstance(entry["facts"], dict)
                and all(map(_is_plausible, timings))
                and _is_text(entry.get("dropped", {}))
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            known = False
        if known:
            yield entry
        elif line.strip():
            logger.info("passing over an unreadable line of the tuning record")


def _is_text(dropped: Any) -> bool:
    return isinstance(dropped, dict) and all(isinstance(why, str) for why in dropped.values())


def _is_plausible(timing: Timing) -> bool:
    numbers = (timing.seconds, timing.noise)
    return all(type(x) in (int, float) and math.isfinite(x) for x in numbers) and (
        timing.seconds > 0 and timing.noise >= 0
    )
