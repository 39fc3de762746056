"""Checkpoints that are whole: a run that was killed while it wrote one goes on from the one before."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from airflow_provider_kitops.oci.disk import write_file

_MARK = "whole"
_NAME = re.compile(r"checkpoint-(\d+)")


class Checkpoints:
    """The checkpoints of one run.

    :param directory: where they are; what another run left there is removed.
    :param fingerprint: names the run (``workload.fingerprint``).
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        note = directory / "fingerprint"
        if not note.is_file() or note.read_text(encoding="utf-8") != fingerprint:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            write_file(note, fingerprint.encode())

    def mark(self, step: int) -> None:
        """The checkpoint of ``step`` has been written to its end."""
        directory = self.directory / f"checkpoint-{step}"
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        write_file(directory / _MARK, str(step).encode())

    def last(self) -> str | None:
        """The last whole checkpoint, if there is one. Those that are not whole are removed."""
        steps: list[int] = []
        for path in self.directory.glob("checkpoint-*"):
            match = _NAME.fullmatch(path.name)
            if match and (path / _MARK).is_file():
                steps.append(int(match[1]))
            else:
                shutil.rmtree(path)
        return str(self.directory / f"checkpoint-{max(steps)}") if steps else None

    def is_whole(self, step: int) -> bool:
        """Whether there is a whole checkpoint of ``step``."""
        return (self.directory / f"checkpoint-{step}" / _MARK).is_file()

    def remove(self) -> None:
        """The run is over."""
        shutil.rmtree(self.directory, ignore_errors=True)
