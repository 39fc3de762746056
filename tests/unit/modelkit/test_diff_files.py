"""What differs inside layers."""

from __future__ import annotations

import pytest

from airflow_provider_kitops.modelkit.diff import FileChange, FileState, diff, diff_files
from airflow_provider_kitops.modelkit.kitfile import Code, Kitfile
from airflow_provider_kitops.modelkit.limits import Limits
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import LimitExceeded
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write

SRC = Kitfile(code=(Code(path="src"),))


def state(text: str, mode: int = 0o644) -> FileState:
    return FileState(digest_of(text.encode()), len(text), mode)


def test_files_are_compared_by_content_and_mode(layout: Layout, write: Write) -> None:
    context = write({"src/same": "1", "src/text": "old", "src/mode": "m", "src/gone": "g"})
    for file in (context / "src").iterdir():
        file.chmod(0o644)
    old = pack(context, SRC, layout, "old")
    write({"src/text": "new", "src/more": "n"})
    (context / "src/more").chmod(0o644)
    (context / "src/mode").chmod(0o755)
    (context / "src/gone").unlink()
    new = pack(context, SRC, layout, "new", compression="zstd")
    (change,) = diff(old, new).layers
    assert diff_files(layout, layout, change) == [
        FileChange("src", "src/gone", state("g"), None),
        FileChange("src", "src/mode", state("m"), state("m", 0o755)),
        FileChange("src", "src/more", None, state("n")),
        FileChange("src", "src/text", state("old"), state("new")),
    ]


def test_a_layer_of_one_side_is_all_new_or_all_gone(layout: Layout, write: Write) -> None:
    context = write({"src/a": "1", "b": "2"})
    for file in (context / "src/a", context / "b"):
        file.chmod(0o644)
    old = pack(context, SRC, layout, "old")
    new = pack(context, Kitfile(code=(Code(path="b"),)), layout, "new")
    changes = [file for change in diff(old, new).layers for file in diff_files(layout, layout, change)]
    directory = FileState("", 0, (context / "src").stat().st_mode & 0o777)
    assert changes == [
        FileChange("src", "src", directory, None),
        FileChange("src", "src/a", state("1"), None),
        FileChange("b", "b", None, state("2")),
    ]


def test_many_names_are_too_many(layout: Layout, write: Write) -> None:
    write({f"src/{number}": "1" for number in range(50)})
    old = pack(write({"src/a": "1"}), SRC, layout)
    (change,) = diff(old, pack(write({"src/a": "2"}), SRC, layout)).layers
    for limits in (Limits(files=10), Limits(names=500), Limits(bytes=5000)):
        with pytest.raises(LimitExceeded):
            diff_files(layout, layout, change, limits=limits)
