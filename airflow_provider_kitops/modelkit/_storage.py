"""Turns what the operating system says about a disk into one clear error."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_kitops.oci.errors import StorageError

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or use a directory on another disk.",
    errno.EDQUOT: "The disk quota is used up.",
    errno.EACCES: "Check the permissions of the file and of the directories above it.",
    errno.EPERM: "Check the permissions of the file and of the directories above it.",
    errno.EROFS: "The file system is read-only.",
    errno.ENAMETOOLONG: "A name is longer than this file system allows.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n), or lower the concurrency.",
}


@contextmanager
def storage(tried: str, path: Path | str) -> Iterator[None]:
    """Raise ``StorageError`` for any ``OSError`` in the block.

    :param tried: a verb with its preposition, such as ``"write to"``.
    :param path: what it was tried on.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"Could not {tried} {path}: {reason}.", hint=_HINTS.get(error.errno or 0, "")) from error
