"""Files of a local layout under construction: written as a stream, and swept up when their writers were killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from pathlib import Path
from types import TracebackType

from airflow_provider_kitops.oci.disk import make_directory, storage_error, storage_errors, sync_directory

# A temporary file younger than this may belong to a writer that has not locked it yet.
_GRACE = 60.0


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
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]

    def keep(self, path: Path) -> None:
        """Give the file its final name, in one step and durably.

        :raises StorageError: the disk refuses.
        """
        with storage_errors("write", path):
            os.fsync(self._handle)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(path)
            self._kept = True
            sync_directory(path.parent)

    def __enter__(self) -> Temporary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._kept:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._handle)


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
    if time.time() - path.stat().st_mtime < _GRACE:
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the writer lives
        path.unlink()
    finally:
        os.close(handle)
