"""Who may have written what is in the cache folder: it gets executed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparsecompile.codegen.entries import VARIABLE
from sparsecompile.errors import CacheError

ROOT = 0
"""May write anywhere anyway."""


def check_trust(path: Path, status: os.stat_result, folder: Path) -> None:
    """Return if only this user or root can have written to a path.

    Args:
        path: the folder, or an entry in it.
        status: what the system says of it.
        folder: the cache folder.

    Raises:
        CacheError: it belongs to somebody else, or others may write to it.
    """
    if not hasattr(os, "getuid"):
        return
    if status.st_uid not in (os.getuid(), ROOT):
        problem = f"belongs to user {status.st_uid}, not to you or root"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"may be written to by others; run: chmod -R go-w {folder}"
    else:
        return
    what = f"the cache folder {path}" if path == folder else f"{path} in the cache folder"
    raise CacheError(
        folder,
        f"{what} {problem} (what is in it gets executed), "
        f"or set {VARIABLE} to a folder of your own",
    )
