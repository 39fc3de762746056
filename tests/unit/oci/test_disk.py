"""What a disk refuses is told in one way, wherever it happens."""

from __future__ import annotations

import errno
import os

import pytest

from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import StorageError


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "permission"), (errno.EMFILE, "ulimit"), (errno.EIO, "")],
)
def test_a_refusal_names_what_was_tried_on_what_and_what_to_do(number: int, advice: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("write", "/some/file"):
        raise OSError(number, os.strerror(number), "/some/file")
    assert caught.value.message == f"Cannot write /some/file: {os.strerror(number)}."
    assert advice in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_is_none_of_the_disk_passes() -> None:
    with pytest.raises(ValueError, match="x"), storage_errors("write", "/some/file"):
        raise ValueError("x")
