"""Turns what the operating system says about a disk into one clear error."""

from __future__ import annotations

import errno
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
