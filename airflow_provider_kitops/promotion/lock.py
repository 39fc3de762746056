"""One promotion of one tag at a time, for everybody who shares the lock directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from airflow_provider_kitops.oci.errors import Conflict, InvalidInput, StorageError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.target import Target

#: Seconds to wait for a promotion that is under way; it takes a handful of requests.
LOCK_TIMEOUT = 60.0


def default_lock_dir(target: Target) -> Path:
    """``$MODELKIT_LOCK_DIR``; else inside a local layout, so that all who share it share the lock; else a directory of
    the user's on this machine (``$XDG_STATE_HOME``, ``~/.local/state``).
    """
    if directory := os.environ.get("MODELKIT_LOCK_DIR"):
        return Path(directory)
    if isinstance(target, Layout):
        return target.path / ".locks"
    state = os.environ.get("XDG_STATE_HOME")
    if not state:
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError:  # no HOME, and the user is in no list of users, as in many a container
            raise InvalidInput(
                "There is no home directory to keep the lock in.",
                hint="Name a directory: lock_dir, --lock-dir or $MODELKIT_LOCK_DIR.",
            ) from None
    return Path(state) / "airflow-provider-kitops" / "locks"


@contextmanager
def promotion_lock(
    target: Target, tag: str, directory: Path | None = None, timeout: float = LOCK_TIMEOUT
) -> Iterator[None]:
    """Hold the lock of one tag.

    It keeps out every other promotion and rollback of this package that uses the same directory (a directory on a
    shared file system works as far as that file system honours ``flock``). It is released when the process dies,
    however it dies. Nobody who writes the tag by other means is kept out.

    :param target: the repository of the tag. Its name must be spelt the same by all.
    :param tag: tag to be moved.
    :param directory: where the lock files are; None = ``default_lock_dir``.
    :param timeout: seconds to wait for whoever holds it.
    :raises Conflict: it was held all that time.
    :raises StorageError: the directory cannot be written.
    """
    directory = directory or default_lock_dir(target)
    what = f"{target.name}:{tag}"
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / f"{name}.lock")
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise Conflict(
            f"Another promotion has held the lock of {what} for {timeout:g} seconds.",
            hint="Look what it is waiting for, then try again.",
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter for a file system that has no locks
        raise StorageError(
            f"Cannot lock {what} in {directory}: {getattr(error, 'strerror', None) or error}.",
            hint="Name a directory that can be written: lock_dir, --lock-dir or $MODELKIT_LOCK_DIR.",
        ) from error
    try:
        yield
    finally:
        lock.release()
