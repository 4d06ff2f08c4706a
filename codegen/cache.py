"""The one cache folder: generated sources and what was built from them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparsecompile.codegen.entries import BUILDING, VARIABLE
from sparsecompile.codegen.private import make_private, private_folder
from sparsecompile.codegen.sweep import alive, sweep
from sparsecompile.codegen.trust import check_trust
from sparsecompile.errors import CacheError


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

    What is in the folder gets executed, so nobody but its user and root may have written it: it is
    made with mode 0700, and refused when it belongs to somebody else or others may write to it.
    Where it is read-only, what would be written goes to a folder of this process alone.

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
        self._check_folder()
        private = private_folder(self.folder)
        own = private / name if private is not None else None
        return own if own is not None and own.exists() else self.folder / name

    def read(self, name: str) -> bytes | None:
        """Content of an entry if it is there and whole, else None.

        Raises:
            CacheError: the folder or the entry cannot be read, or others may write to it.
        """
        path = self.path(name)
        try:
            content = self._read(path)
            expected = self._read(path.with_name(f"{name}.sha256"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except CacheError:
            raise
        except OSError as error:
            raise self._error("read", error) from error
        digest = hashlib.sha256(content).hexdigest()
        return content if digest.encode("ascii") == expected.strip() else None

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
        folder = self._writable()
        path = folder / name
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
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

    def appendable(self, name: str) -> Path:
        """Path of a file to append to: the entry, or of a read-only one this process's copy.

        Raises:
            CacheError: the folder cannot be made or written to, or the disk is full.
        """
        there, own = self.path(name), self._writable() / name
        if there != own and there.exists():
            try:
                shutil.copyfile(there, own)
            except OSError as error:
                raise self._error("write to", error) from error
        return own

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder inside the cache for the compiler's output; gone afterwards.

        What killed processes left of theirs is deleted, at the first call in a process.

        Raises:
            CacheError: it cannot be made.
        """
        inside = self._writable()
        sweep(inside)
        with contextlib.ExitStack() as stack:
            try:
                made = tempfile.TemporaryDirectory(
                    prefix=BUILDING, dir=inside, ignore_cleanup_errors=True
                )
                folder = Path(stack.enter_context(made))
                stack.enter_context(alive(folder))
            except OSError as error:
                raise self._error("write to", error) from error
            yield folder

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an entry's lock: of all threads and processes, one builds it.

        Raises:
            CacheError: the lock file cannot be made.
        """
        import filelock

        lock = filelock.FileLock(self._writable() / f"{name}.lock", thread_local=False)
        try:
            lock.acquire()
        except OSError as error:
            raise self._error("write to", error) from error
        try:
            yield
        finally:
            lock.release()

    def is_writable(self) -> bool:
        """Whether what is written stays; the folder is made where there is none.

        Raises:
            CacheError: it cannot be made, belongs to somebody else, or others may write to it.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._error("make", error) from error
        self._check_folder()
        return os.access(self.folder, os.W_OK)

    def check_writable(self) -> None:
        """Return if what is written stays.

        Raises:
            CacheError: it would not.
        """
        if not self.is_writable():
            raise CacheError(
                self.folder,
                f"the cache folder {self.folder} is read-only; set {VARIABLE} to a folder that you "
                "can write to, or run this as its owner",
            )

    def _writable(self) -> Path:
        """The folder, or what stands for it where it is read-only."""
        return self.folder if self.is_writable() else make_private(self.folder)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            check_trust(path, os.fstat(file.fileno()), self.folder)
            return file.read()

    def _check_folder(self) -> None:
        try:
            status = self.folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._error("read", error) from error
        check_trust(self.folder, status, self.folder)

    def _error(self, action: str, error: OSError) -> CacheError:
        reason = error.strerror or str(error)
        readable = f"run chmod -R a+rX {self.folder} as its owner, or " if action == "read" else ""
        return CacheError(
            self.folder,
            f"cannot {action} the cache folder {self.folder}: {reason}; {readable}"
            f"set {VARIABLE} to a folder that you can write to and that has free space",
        )
