"""What killed processes left in the cache folder: found dead for sure, and deleted."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sparsecompile.codegen.entries import BUILDING, TEMPORARY

logger = logging.getLogger("sparsecompile")
LOCK = "lock"
"""A file in such a folder; whoever works there holds it, and the system lets go for the dead."""
HOUR = 3600.0
"""Seconds for which nothing is touched: a folder may not be locked yet, a file not be renamed."""


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Keep a folder for output from being swept, by other processes and from other containers."""
    import filelock

    with filelock.FileLock(folder / LOCK, thread_local=False):
        yield


@cache
def sweep(folder: Path) -> None:
    """Delete temporary files and folders of processes that are no more; once a process.

    A file is there for the moment in which it is written, a folder as long as a compiler runs,
    which may be a process that sleeps: its lock has to be free.

    Args:
        folder: the cache folder.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and _is_dead(entry):
                logger.info("deleting %s, which a killed process left", entry.path)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _is_dead(entry: os.DirEntry[str]) -> bool:
    import filelock

    if time.time() - entry.stat(follow_symlinks=False).st_mtime < HOUR:
        return False
    if entry.is_file(follow_symlinks=False):
        return TEMPORARY.fullmatch(entry.name) is not None
    if not entry.name.startswith(BUILDING) or not entry.is_dir(follow_symlinks=False):
        return False
    try:
        with filelock.FileLock(Path(entry.path) / LOCK, timeout=0, thread_local=False):
            return True
    except (filelock.Timeout, OSError):
        return False
