"""What belongs into each layer of a context, and the layer as a stream of tar bytes."""

from __future__ import annotations

import functools
import logging
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_kitops.modelkit import _tar
from airflow_provider_kitops.modelkit._collisions import first_collision
from airflow_provider_kitops.modelkit._paths import clean, within
from airflow_provider_kitops.modelkit._scan import FileEntry, Scan
from airflow_provider_kitops.modelkit.forms import LayerFormat
from airflow_provider_kitops.modelkit.ignore import IgnoreRules
from airflow_provider_kitops.modelkit.kitfile import Kitfile, LayerKind
from airflow_provider_kitops.oci.disk import storage_error, storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput, StorageError

log = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class LayerPlan:
    """A layer that can be read, any number of times.

    :param path: clean path of the layer below the context.
    :param name: what to call it: the entry's name, or its path.
    """

    context: Path
    kind: LayerKind
    path: str
    name: str
    entries: tuple[FileEntry, ...] = field(repr=False)
    layer_format: LayerFormat = "tar"

    @functools.cached_property
    def size(self) -> int:
        """Bytes of the stream."""
        if self.layer_format == "raw":
            return self.entries[0].size
        return sum(
            _tar.header_size(entry.name, entry.size) + entry.size + -entry.size % _tar.BLOCK for entry in self.entries
        ) + len(_tar.TRAILER)

    def chunks(self, on_bytes: Callable[[int], None] = lambda count: None) -> Iterator[bytes]:
        """The tar stream, or the file of a raw layer: each file read once, in chunks of about a mebibyte.

        :param on_bytes: told how many bytes each chunk has.
        :raises StorageError: a file cannot be read, or its size has changed since the scan.
        """
        for chunk in self._raw() if self.layer_format == "raw" else self._tar():
            on_bytes(len(chunk))
            yield chunk

    def _raw(self) -> Iterator[bytes]:
        (file,) = self.entries
        return _read(self._path(file), file.size)

    def _tar(self) -> Iterator[bytes]:
        buffer = bytearray()
        for entry in self.entries:
            buffer += _tar.header(entry.name, entry.mode, entry.size, directory=entry.directory)
            if not entry.directory:
                if entry.size < _CHUNK:
                    buffer += _whole(self._path(entry), entry.size)
                else:
                    yield bytes(buffer)
                    buffer.clear()
                    yield from _read(self._path(entry), entry.size)
                buffer += _tar.padding(entry.size)
            if len(buffer) >= _CHUNK:
                yield bytes(buffer)
                buffer.clear()
        buffer += _tar.TRAILER
        yield bytes(buffer)

    def _path(self, entry: FileEntry) -> str:
        return f"{self.context}/{entry.name}"


#: A file that became a link since the scan must not lead out of the context, nor one that became a pipe block.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _whole(path: str, size: int) -> bytes:
    """A small file, with as few calls as can be: there may be hundreds of thousands."""
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            data = os.read(descriptor, size + 1)
            while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
                data += more
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) != size:
        raise _changed(path)
    return data


def _read(path: str, size: int) -> Iterator[bytes]:
    with storage_errors("read", path):
        descriptor = os.open(path, _FLAGS)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        left = size
        while left:
            with storage_errors("read", path):
                data = file.read(min(left, _CHUNK))
            if not data:
                raise _changed(path)
            left -= len(data)
            yield data
        with storage_errors("read", path):
            if file.read(1):
                raise _changed(path)


def _changed(path: str) -> StorageError:
    return StorageError(
        f"{path} changed while it was being packed.", hint="Pack when nothing writes into the context any more."
    )


def plan_layers(
    context: Path,
    kitfile: Kitfile,
    rules: IgnoreRules,
    inherited: Sequence[str] = (),
    *,
    layer_format: LayerFormat = "tar",
    skip_two_dots: bool = False,
) -> tuple[LayerPlan, ...]:
    """Scan the context: every file goes into the layer whose path is the most specific one that holds it.

    :param inherited: paths that the layers of parent ModelKits fill; their files are not packed again.
    :param layer_format: ``raw`` wants one file for each layer; MCP servers are always raw.
    :param skip_two_dots: leave files with ``..`` in their names out.
    :raises InvalidInput: paths that do not exist or hold no file, all of them in one message.
    :raises UnsafePath: a name that no ModelKit can carry (``..`` in it, or not UTF-8).
    :raises StorageError: something cannot be read.
    """
    _context(context)
    entries = list(kitfile.entries())
    everything = [
        *(entry.path for _, entry in entries),
        *(dataset.path for dataset in kitfile.datasets if dataset.remote_path),
        *inherited,
    ]
    claims = [clean(path) for path in everything]
    plans: list[LayerPlan] = []
    problems: list[str] = []
    for kind, entry in entries:
        path = clean(entry.path)
        label = f"{kind.value} {getattr(entry, 'name', '')}".strip()
        form: LayerFormat = "raw" if kind is LayerKind.MCP_SERVER else layer_format
        others = [claim for claim in claims if claim != path and within(claim, path)]
        scan = Scan(context, path, rules, others, skip_two_dots=skip_two_dots)
        problem = scan.problem() or scan.run() or (scan.raw() if form == "raw" else None)
        if problem:
            problems.append(f"{label}: {problem}")
        plans.append(LayerPlan(context, kind, path, getattr(entry, "name", "") or path, tuple(scan.found), form))
    if problems:
        listed = problems[0] if len(problems) == 1 else "".join(f"\n  * {problem}" for problem in problems)
        raise InvalidInput(f"The context {context} cannot be packed. {listed}")
    collision = first_collision(lambda: (entry.name for plan in plans for entry in plan.entries))
    if collision:
        log.warning(
            "%s and %s are one name on disks of macOS and Windows; unpacking refuses them unless told otherwise.",
            *collision,
        )
    return tuple(plans)


def unnamed(context: Path, kitfile: Kitfile, rules: IgnoreRules) -> list[str]:
    """What no path of the Kitfile holds and no rule leaves out: files, and directories as a whole, sorted by name.

    :raises StorageError: something cannot be read.
    """
    claims = [clean(entry.path) for _, entry in kitfile.entries()]
    claims += [clean(dataset.path) for dataset in kitfile.datasets if dataset.remote_path]
    found: list[str] = []
    pending = [""]
    while pending:
        directory = pending.pop()
        with storage_errors("read the directory", context / directory), os.scandir(context / directory) as children:
            for child in children:
                name = posixpath.join(directory, child.name)
                if any(within(name, claim) for claim in claims) or rules.matches(name):
                    continue
                if child.is_dir(follow_symlinks=False) and any(within(claim, name) for claim in claims):
                    pending.append(name)
                else:
                    found.append(name)
    return sorted(found)


def _context(context: Path) -> None:
    with storage_errors("read the context", context):
        if not context.exists():
            raise InvalidInput(f"The context directory {context} does not exist.")
        if not context.is_dir():
            raise InvalidInput(f"The context {context} is not a directory.")
