"""A disk's refusals as one clear error, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_kitops.oci.errors import StorageError

_PERMISSION = "Give the user that runs this permission for it and the directories above it, or use another directory."
_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or use a directory on another disk.",
    errno.EDQUOT: "The disk quota is used up: free some space, or use another directory.",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "The file system is read-only: use another directory.",
    errno.ENOTDIR: "A file is in the way of a directory.",
    errno.EEXIST: "A file is in the way of a directory.",
    errno.ENAMETOOLONG: "A name is longer than this file system allows.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n), or lower the concurrency.",
}


def said(error: BaseException) -> str:
    """What an error says, without numbers and paths."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


def storage_error(doing: str, path: Path | str, error: OSError) -> StorageError:
    """The error for a disk's refusal: as ``storage_errors`` raises it."""
    return StorageError(f"Cannot {doing} {path}: {said(error)}.", hint=_HINTS.get(error.errno or 0, ""))


@contextmanager
def storage_errors(doing: str, path: Path | str) -> Iterator[None]:
    """Raise ``StorageError`` for any ``OSError`` in the block.

    :param doing: what is tried, with its preposition, as in "Cannot ... PATH".
    :param path: what it is tried on.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error


def check_room(place: Path, needed: int, done: str) -> None:
    """Notice a full disk before hours of work.

    :param place: where the bytes go; need not exist.
    :param needed: how many.
    :param done: what is done to them: "unpacked".
    :raises StorageError: its disk has fewer left.
    """
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    with storage_errors("look at the disk of", there):
        free = shutil.disk_usage(there).free
    if needed > free:
        raise StorageError(
            f"{needed} bytes are to be {done}, and the disk of {place} has {free} left.",
            hint="The disk is too full: free some space, or use a directory on another disk.",
        )


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Make a directory and those above it.

    :param mode: its permissions, less the umask.
    :raises StorageError: the disk refuses.
    """
    with storage_errors("make the directory", path):
        path.mkdir(mode, parents=True, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data``, however little the disk takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file in an existing directory, durably: readers see the old bytes or the new, whatever happens.

    A process that is killed leaves a file beside it whose name begins with a dot and ends with ``.new``.

    :param mode: its permissions, less the umask.
    :raises StorageError: the disk refuses; the old file is what it was.
    """
    # Not a fixed name: of two who write at the same time, one would rename what the other has half written.
    temporary = path.with_name(f".{secrets.token_hex(8)}.new")
    with storage_errors("write", path):
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)
