"""A folder of this process alone, for what a read-only cache folder lacks."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

from sparsecompile.codegen.entries import VARIABLE
from sparsecompile.errors import CacheError

logger = logging.getLogger("sparsecompile")
_folders: dict[Path, Path] = {}
"""By the read-only folders that they stand for."""
_making = threading.Lock()
# A child must not use what its parent deletes.
os.register_at_fork(after_in_child=_folders.clear)


def private_folder(folder: Path) -> Path | None:
    """What this process has made to stand for a read-only folder, if anything."""
    return _folders.get(folder)


def make_private(folder: Path) -> Path:
    """The same, made where there is none, with a warning; deleted when the process ends.

    Raises:
        CacheError: there is nowhere to make one.
    """
    with _making:
        if folder not in _folders:
            try:
                made = Path(tempfile.mkdtemp(prefix="sparsecompile-"))
            except OSError as error:
                raise CacheError(
                    folder,
                    f"the cache folder {folder} is read-only, and so is everything else: {error}; "
                    f"set {VARIABLE} to a folder that you can write to",
                ) from error
            atexit.register(_remove, made, os.getpid())
            _folders[folder] = made
            logger.warning(
                "the cache folder %s is read-only: what it lacks is built and measured for this "
                "process alone, in %s, and by the next one again. Fill it before it becomes "
                "read-only, or set %s to a folder that you can write to",
                *(folder, made, VARIABLE),
            )
        return _folders[folder]


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
