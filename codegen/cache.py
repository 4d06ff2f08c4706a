"""The one cache folder: generated sources and what was built from them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparsecompile.errors import CacheError

VARIABLE = "SPARSECOMPILE_CACHE_DIR"


def cache_folder() -> Path:
    """Where the cache is: `$SPARSECOMPILE_CACHE_DIR`, else the platform's; read at every call.

    Raises:
        CacheError: it would be in a home directory, and there is none.
    """
    chosen = os.environ.get(VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        import platformdirs

        # Older versions leave a ~ for which there is no folder as it is.
        return Path(platformdirs.user_cache_dir("sparsecompile")).expanduser()
    except RuntimeError as error:
        # What pathlib says of a user that the system does not know, as in some containers.
        folder = Path(chosen or "~")
        raise CacheError(
            folder,
            f"the cache folder {chosen or 'of the user'} cannot be found: {error}; "
            f"set {VARIABLE} to the full path of a folder that you can write to",
        ) from error


class Cache:
    """Files of one folder, each written as a whole or not at all.

    What is in the folder gets executed, so it has to be the user's own: it is made with mode
    0700, and refused when it belongs to somebody else or others may write to it.

    Args:
        folder: the folder; made at the first write.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def path(self, name: str) -> Path:
        """Path of an entry, whether or not there is one.

        Raises:
            CacheError: the folder belongs to somebody else, or others may write to it.
        """
        self._check_owner()
        return self.folder / name

    def read(self, name: str) -> bytes | None:
        """Content of an entry if it is there and whole, else None.

        Raises:
            CacheError: the folder or the entry cannot be read.
        """
        path = self.path(name)
        try:
            content = path.read_bytes()
            expected = path.with_name(f"{name}.sha256").read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None
        except OSError as error:
            raise self._error("read", error) from error
        return content if hashlib.sha256(content).hexdigest() == expected.strip() else None

    def write(self, name: str, content: bytes) -> Path:
        """Write an entry and, last, the digest that says it is whole.

        Raises:
            CacheError: the folder cannot be made or written to, or the disk is full.
        """
        path = self.write_plain(name, content)
        digest = hashlib.sha256(content).hexdigest()
        self.write_plain(f"{name}.sha256", f"{digest}\n".encode("ascii"))
        return path

    def write_plain(self, name: str, content: bytes) -> Path:
        """Write a file that is read by people only.

        Raises:
            CacheError: the folder cannot be made or written to, or the disk is full.
        """
        self._make()
        path = self.folder / name
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise self._error("write to", error) from error
        return path

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder inside the cache for the compiler's output; gone afterwards.

        Raises:
            CacheError: it cannot be made.
        """
        self._make()
        try:
            folder = tempfile.TemporaryDirectory(
                prefix=".build-", dir=self.folder, ignore_cleanup_errors=True
            )
        except OSError as error:
            raise self._error("write to", error) from error
        with folder as name:
            yield Path(name)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an entry's lock: of all threads and processes, one builds it.

        Raises:
            CacheError: the lock file cannot be made.
        """
        import filelock

        self._make()
        lock = filelock.FileLock(self.folder / f"{name}.lock", thread_local=False)
        try:
            lock.acquire()
        except OSError as error:
            raise self._error("write to", error) from error
        try:
            yield
        finally:
            lock.release()

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._error("make", error) from error
        self._check_owner()

    def _check_owner(self) -> None:
        try:
            status = self.folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._error("read", error) from error
        if not hasattr(os, "getuid"):
            return
        if status.st_uid != os.getuid():
            problem = f"belongs to user {status.st_uid}, not to you"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            problem = f"may be written to by others; run: chmod 700 {self.folder}"
        else:
            return
        raise CacheError(
            self.folder,
            f"the cache folder {self.folder} {problem} (what is in it gets executed), "
            f"or set {VARIABLE} to a folder of your own",
        )

    def _error(self, action: str, error: OSError) -> CacheError:
        reason = error.strerror or str(error)
        return CacheError(
            self.folder,
            f"cannot {action} the cache folder {self.folder}: {reason}; "
            f"set {VARIABLE} to a folder that you can write to and that has free space",
        )
