"""Caps on what a ModelKit that nobody vouches for may bring with it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_provider_kitops.oci.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """What a ModelKit may bring with it, its parents included.

    :param files: files and directories, those included that only the names of others imply.
    :param bytes: unpacked bytes, headers included.
    :param names: bytes of memory for the names of files and directories, which are kept until all of them are in
        place. The default holds a million of 200 characters.
    """

    files: int = 1_000_000
    bytes: int = 1024**4
    names: int = 256 * 1024**2


DEFAULT_LIMITS = Limits()


class Budget:
    """Counts what all layers bring together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0
        self._names = 0

    def file(self) -> None:
        with self._lock:
            self._files += 1
            if self._files > self._limits.files:
                raise LimitExceeded(
                    f"The ModelKit holds more than {self._limits.files} files.",
                    hint="Raise the limit if that is right.",
                )

    def name(self, size: int) -> None:
        with self._lock:
            self._names += size
            if self._names > self._limits.names:
                raise LimitExceeded(
                    f"The names of the files in the ModelKit need more than {self._limits.names} bytes of memory.",
                    hint="Raise the limit if so many and so long names are right.",
                )

    def data(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if self._bytes > self._limits.bytes:
                raise LimitExceeded(
                    f"The ModelKit unpacks to more than {self._limits.bytes} bytes.",
                    hint="Raise the limit if that is right.",
                )
