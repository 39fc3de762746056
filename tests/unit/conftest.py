"""Where the unit tests write: into memory if this machine has room for it there.

Much of their time is spent in fsync, which the code under test calls for every file that it keeps. That stays as it is;
on a file system in memory it costs nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")  # each test gets a directory of its own there, open to this user alone
_NEEDED = 1024**3  # bytes; a container often has 64 MiB there, which single tests fill


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """As pytest's own, but in memory; with ``--basetemp`` the files stay where that says, to be looked at."""
    if request.config.option.basetemp or not _has_room():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="pytest-", dir=_MEMORY, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _has_room() -> bool:
    return _MEMORY.is_mount() and os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _NEEDED
