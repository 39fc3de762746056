"""Files of a local layout under construction: written as a stream, and swept up when their writers were killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from airflow_provider_kitops.oci.content import CHUNK
from airflow_provider_kitops.oci.disk import make_directory, storage_error, storage_errors, sync_directory, write_all
from airflow_provider_kitops.oci.errors import Interrupted, StorageError

# A temporary file younger than this may belong to a writer that has not locked it yet.
_GRACE = 60.0
# How long a download that was broken off is kept to be taken up again.
_DAY = 24 * 3600.0
_PARTIAL = ".part"
# Seconds between two looks whether another process has finished a download.
_POLL = 0.2


class Temporary:
    """A file under construction: ``keep`` gives it its name, leaving the block without that removes it.

    It is locked as long as its writer lives, so that ``sweep`` can tell what a killed process left behind.

    :param directory: where it is made; on the same file system as where it will be kept.
    :param shown: the path that messages name.
    """

    def __init__(self, directory: Path, shown: Path) -> None:
        self._shown = shown
        self._path = directory / secrets.token_hex(16)
        make_directory(directory)
        with storage_errors("write", shown):
            # Content named by digest never changes; 0444 keeps other programs from trying.
            self._handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444)
            with contextlib.suppress(OSError):  # some network file systems have no flock; sweep then waits longer
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._kept = False

    def write(self, data: bytes) -> None:
        """Append.

        :raises StorageError: the disk refuses.
        """
        with storage_errors("write", self._shown):
            write_all(self._handle, data)

    def keep(self, path: Path) -> None:
        """Give the file its final name, in one step and durably.

        :raises StorageError: the disk refuses.
        """
        with storage_errors("write", path):
            _rename(self._handle, self._path, path)
            self._kept = True

    def __enter__(self) -> Temporary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._kept:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._handle)


class OfAnotherUser(Exception):
    """A download that another user has begun, in a layout that both share."""


class Partial:
    """The part of a blob that has been downloaded so far: it outlives the process, and the next one goes on with it.

    A context manager that waits until no other process works on it. Leaving the block without ``keep`` leaves the
    file, unless the disk is full or nothing is in it; ``sweep`` removes it a day after its last change.

    :param directory: where it is.
    :param path: what it will become, and the path that messages name.
    :param interrupted: ends the wait once it is set.
    :raises Interrupted: the wait was ended.
    :raises OfAnotherUser: it is not ours to write to.
    """

    def __init__(self, directory: Path, path: Path, interrupted: threading.Event) -> None:
        self._path = directory / f"{path.parent.name}-{path.name}{_PARTIAL}"
        self._shown = path
        self._interrupted = interrupted
        self.size = 0
        self._kept = False

    def __enter__(self) -> Partial:
        make_directory(self._path.parent)
        while True:
            with storage_errors("write", self._shown):
                try:
                    self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                except PermissionError:
                    raise OfAnotherUser from None
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                        raise
                    self._path.unlink()  # a link, or whatever else it is: nothing of ours
                    continue
            try:
                self._lock()
                status = os.fstat(self._handle)
                # Whoever had it before may have finished and renamed it.
                with contextlib.suppress(FileNotFoundError):
                    if self._path.stat().st_ino == status.st_ino:
                        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                            self.size = status.st_size
                            os.lseek(self._handle, self.size, os.SEEK_SET)
                            return self
                        self._path.unlink()  # what is written to it would be in another file, too
            except BaseException:
                os.close(self._handle)
                raise
            os.close(self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._kept and (isinstance(error, StorageError) or self.size == 0):
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._handle)

    def _lock(self) -> None:
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._interrupted.wait(_POLL):
                    raise Interrupted(f"The wait for {self._shown.name} was interrupted.") from None
            except OSError:  # some network file systems have no flock: the digest still tells what is whole
                return
            else:
                return

    def chunks(self) -> Iterator[bytes]:
        """What is there already."""
        at = 0
        with storage_errors("read", self._path):
            while at < self.size:
                data = os.pread(self._handle, min(CHUNK, self.size - at), at)
                if not data:
                    break
                at += len(data)
                yield data

    def write(self, data: bytes) -> None:
        """Append.

        :raises StorageError: the disk refuses.
        """
        with storage_errors("write", self._shown):
            self.size += len(data)
            write_all(self._handle, data)

    def empty(self) -> None:
        """Begin anew."""
        with storage_errors("write", self._shown):
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            self.size = 0

    def keep(self, path: Path) -> None:
        """Give the file its final name, in one step and durably.

        :raises StorageError: the disk refuses.
        """
        with storage_errors("write", path):
            _rename(self._handle, self._path, path)
            # Only now: whoever is killed before has left a file that the next one can write to.
            os.fchmod(self._handle, os.fstat(self._handle).st_mode & 0o444)
            self._kept = True


def _rename(handle: int, path: Path, final: Path) -> None:
    os.fsync(handle)
    final.parent.mkdir(parents=True, exist_ok=True)
    path.replace(final)
    sync_directory(final.parent)


def partial_bytes(directory: Path) -> int:
    """How much of what is being downloaded is there already."""
    found = 0
    with contextlib.suppress(FileNotFoundError):
        for path in directory.glob(f"*{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                found += path.stat().st_size
    return found


def replace_file(path: Path, data: bytes, temporary: Path) -> None:
    """Write ``data`` to ``path`` so that readers see the old bytes or the new, whatever happens.

    :param temporary: directory for the file under construction.
    :raises StorageError: the disk refuses.
    """
    with Temporary(temporary, path) as file:
        file.write(data)
        file.keep(path)


def link(source: Path, path: Path) -> bool:
    """Give a file a second name; False if the file system or its rules do not allow it.

    :raises StorageError: the disk is full or read-only.
    """
    make_directory(path.parent)
    try:
        os.link(source, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOENT):
            return False
        raise storage_error("write", path, error) from error
    sync_directory(path.parent)
    return True


def sweep(directory: Path) -> None:
    """Remove temporary files whose writers were killed."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            with contextlib.suppress(OSError):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):  # nothing of ours, and a pipe would keep us waiting
        return
    if time.time() - status.st_mtime < (_DAY if path.name.endswith(_PARTIAL) else _GRACE):
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the writer lives
        path.unlink()
    finally:
        os.close(handle)
