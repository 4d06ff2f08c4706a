"""What was measured is kept: by whole lines, of which the readable ones count."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.private import private_folder
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.errors import CacheError

FACTS = {"spec": "linear bitmap/float float32", "m": 1}
GOOD = {"key": "k", "facts": {}, "timings": {"dense": {"seconds": 1.0, "noise": 0.0}}}


@pytest.fixture
def record(cache_folder: Path) -> TuningRecord:
    return TuningRecord()


def test_nothing_is_there_at_first(record: TuningRecord) -> None:
    assert record.entries() == []
    assert record.timings("k") == {}
    record.clear()
    assert not record.path.exists()


def test_later_lines_add_to_earlier_ones(record: TuningRecord) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.1), "a": Timing(2.0, 0.2)})
    record.add("other", FACTS, {"dense": Timing(9.0, 0.0)})
    record.add("k", FACTS, {"a": Timing(3.0, 0.0), "b": Timing(4.0, 0.0)})
    assert TuningRecord().timings("k") == {
        "dense": Timing(1.0, 0.1),
        "a": Timing(3.0, 0.0),
        "b": Timing(4.0, 0.0),
    }
    assert [entry["key"] for entry in record.entries()] == ["k", "other", "k"]
    assert record.entries()[0]["facts"] == FACTS
    assert record.path.stat().st_mode & 0o777 == 0o600


def test_a_record_is_read_again_only_where_it_has_changed(
    record: TuningRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read_text = Path.read_text

    def counted(path: Path, **keywords: str) -> str:
        reads.append(path)
        return read_text(path, **keywords)

    monkeypatch.setattr(Path, "read_text", counted)
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    for key in ("k", "k", "other"):
        assert bool(TuningRecord().timings(key)) == (key == "k")
    assert reads == [record.path]
    # Another process appends, or puts another file of this size in its place.
    with record.path.open("a") as file:
        file.write(json.dumps({**GOOD, "key": "other"}) + "\n")
    assert record.timings("other") == {"dense": Timing(1.0, 0.0)}
    other = record.path.with_name("copy")
    other.write_bytes(record.path.read_bytes().replace(b'"other"', b'"third"'))
    other.replace(record.path)
    assert record.timings("other") == {}
    assert record.timings("third") == {"dense": Timing(1.0, 0.0)}
    assert len(reads) == 3
    record.clear()
    assert record.timings("third") == {}


def test_what_was_dropped_is_kept_with_the_reason(record: TuningRecord) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.1)}, {"a": "24 spills"})
    record.add("other", FACTS, {}, {"c": "too"})
    record.add("k", FACTS, {"a": Timing(2.0, 0.1)}, {"b": "m=1: no kernel image"})
    record.add("k", FACTS, {}, {})
    assert TuningRecord().dropped("k") == {"a": "24 spills", "b": "m=1: no kernel image"}
    assert TuningRecord().timings("k").keys() == {"dense", "a"}
    assert TuningRecord().dropped("nothing") == {}
    assert "dropped" not in record.entries()[-1]


def test_a_key_in_a_name_is_not_a_key(record: TuningRecord) -> None:
    record.add("other", {"spec": "k"}, {"k": Timing(1.0, 0.0)})
    assert record.timings("k") == {}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "k",
        "[]",
        "null",
        '"k"',
        '{"key": "k"}',
        '{"key": 1, "facts": {}, "timings": {}}',
        '{"key": "k", "facts": [], "timings": {}}',
        '{"key": "k", "facts": {}, "timings": []}',
        '{"key": "k", "facts": {}, "timings": {"a": 1}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": 1}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": 1, "noise": 0, "more": 0}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": "1", "noise": 0}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": NaN, "noise": 0}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": Infinity, "noise": 0}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": 0, "noise": 0}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": 1, "noise": -1}}}',
        '{"key": "k", "facts": {}, "timings": {"a": {"seconds": true, "noise": 0}}}',
        '{"key": "k", "facts": {}, "timings": {}, "dropped": ["a"]}',
        '{"key": "k", "facts": {}, "timings": {}, "dropped": {"a": 1}}',
        "[" * 100_000,
        '{"key": "k", "facts": {}, "timi',
    ],
)
def test_lines_that_cannot_be_read_are_passed_over(
    record: TuningRecord, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    with record.path.open("a") as file:
        file.write(f"{line}\n")
    record.add("k", FACTS, {"a": Timing(2.0, 0.0)})
    with caplog.at_level(logging.INFO, "sparsecompile"):
        assert len(record.entries()) == 2
    assert ("passing over an unreadable line" in caplog.text) == bool(line)
    assert record.timings("k").keys() == {"dense", "a"}


def test_bytes_that_are_no_text_are_passed_over(record: TuningRecord) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    with record.path.open("ab") as file:
        file.write(b"\xff\xfe\x00\n")
    assert record.timings("k") == {"dense": Timing(1.0, 0.0)}


def test_a_half_written_line_does_not_spoil_the_next(record: TuningRecord) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    whole = record.path.read_bytes()
    record.path.write_bytes(whole + whole[: len(whole) // 2])
    record.add("k", FACTS, {"a": Timing(2.0, 0.0)})
    assert record.timings("k").keys() == {"dense", "a"}


def test_processes_append_at_once(record: TuningRecord) -> None:
    program = """
import sys
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
for i in range(50):
    TuningRecord().add("k", {"text": "x" * 5000}, {f"{sys.argv[1]} {i}": Timing(1.0, 0.0)})
"""
    command = (sys.executable, "-c", program)
    writers = [subprocess.Popen((*command, name)) for name in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert record.timings("k").keys() == {f"{w} {i}" for w in ("one", "two") for i in range(50)}


def test_who_appends_waits_for_who_does_so(record: TuningRecord) -> None:
    writer = threading.Thread(target=record.add, args=("k", FACTS, {"dense": Timing(1.0, 0.0)}))
    with Cache().lock(record.path.name):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert record.entries() == []
    writer.join()
    assert record.timings("k").keys() == {"dense"}


def test_merge_adds_what_is_new(record: TuningRecord, tmp_path: Path) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    other = tmp_path / "other.jsonl"
    lines = [record.path.read_text().strip(), json.dumps(GOOD), json.dumps(GOOD), "rubbish"]
    other.write_text("\n".join(lines))
    assert record.merge(other) == 1
    assert record.merge(other) == 0
    assert len(record.entries()) == 2


def test_merge_of_what_is_no_record(record: TuningRecord, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    with pytest.raises(CacheError, match=r"cannot read the tuning record .*other.jsonl"):
        record.merge(other)
    other.write_bytes(b"\xff")
    with pytest.raises(CacheError, match="cannot read the tuning record"):
        record.merge(other)
    other.write_text("a thesis\n")
    with pytest.raises(CacheError, match="is no tuning record: no line of it can be read"):
        record.merge(other)
    other.write_text("")
    assert record.merge(other) == 0


def test_clear_forgets_everything(record: TuningRecord) -> None:
    record.add("k", FACTS, {"dense": Timing(1.0, 0.0)})
    record.clear()
    assert record.entries() == []


def test_a_record_that_cannot_be_used(record: TuningRecord, tmp_path: Path) -> None:
    record.path.mkdir(parents=True)
    for use, what in (
        (lambda: record.entries(), "cannot read"),
        (lambda: record.timings("k"), "cannot read"),
        (lambda: record.add("k", FACTS, {}), "cannot write"),
        (lambda: record.clear(), "cannot delete"),
    ):
        with pytest.raises(CacheError, match=f"{what} .*tuning.jsonl: "):
            use()


def test_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CacheError, match="may be written to by others"):
        TuningRecord(Cache(folder)).entries()


def test_a_record_that_is_read_only_is_gone_on_with_by_this_process_alone(
    record: TuningRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.add("first", {}, {"dense": Timing(1.0, 0.0)})
    path, content = record.path, record.path.read_bytes()
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(CacheError, match=r"cannot write to the cache folder .*: No space left"):
            record.add("second", {}, {"dense": Timing(2.0, 0.0)})
    for seconds in (2.0, 3.0):
        record.add("second", {}, {"dense": Timing(seconds, 0.0)})
    assert record.timings("second") == {"dense": Timing(3.0, 0.0)}
    assert record.timings("first") == {"dense": Timing(1.0, 0.0)}
    assert path.read_bytes() == content
    assert record.path.parent == private_folder(path.parent)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
