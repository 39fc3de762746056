"""What belongs into each layer of a context, and the layer as a stream of tar bytes."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_kitops.modelkit import _tar
from airflow_provider_kitops.modelkit._paths import MAX_DEPTH, STAGE_MARK, clean, within
from airflow_provider_kitops.modelkit.ignore import IgnoreRules
from airflow_provider_kitops.modelkit.kitfile import Kitfile, LayerKind
from airflow_provider_kitops.modelkit.manifest import LayerFormat
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput, StorageError, UnsafePath

log = logging.getLogger(__name__)

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class FileEntry:
    """One file or directory of a layer, as it was when the context was scanned.

    :param name: path below the context, with slashes.
    :param mode: permission bits with setuid, setgid and sticky.
    :param size: bytes; 0 for a directory.
    """

    name: str
    mode: int
    size: int
    directory: bool


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

    @property
    def size(self) -> int:
        """Bytes of the stream."""
        if self.layer_format == "raw":
            return self.entries[0].size
        return sum(len(block) + entry.size + -entry.size % _tar.BLOCK for entry, block in self._headers()) + len(
            _tar.TRAILER
        )

    def _headers(self) -> Iterator[tuple[FileEntry, bytes]]:
        for entry in self.entries:
            yield entry, _tar.header(entry.name, entry.mode, entry.size, directory=entry.directory)

    def chunks(self, on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
        """The tar stream, or the file of a raw layer: each file read once, in chunks of about a mebibyte.

        :param on_bytes: told how many bytes each chunk has.
        :raises StorageError: a file cannot be read, or its size has changed since the scan.
        """
        buffer = bytearray()
        for chunk in self._pieces():
            if len(chunk) >= _CHUNK and not buffer:
                if on_bytes:
                    on_bytes(len(chunk))
                yield chunk
                continue
            buffer += chunk
            if len(buffer) >= _CHUNK:
                if on_bytes:
                    on_bytes(len(buffer))
                yield bytes(buffer)
                buffer.clear()
        if on_bytes:
            on_bytes(len(buffer))
        yield bytes(buffer)

    def _pieces(self) -> Iterator[bytes]:
        if self.layer_format == "raw":
            yield from _read(self.context / self.entries[0].name, self.entries[0].size)
            return
        for entry, block in self._headers():
            yield block
            if not entry.directory:
                yield from _read(self.context / entry.name, entry.size)
                yield _tar.padding(entry.size)
        yield _tar.TRAILER


def _read(path: Path, size: int) -> Iterator[bytes]:
    changed = StorageError(
        f"{path} changed while it was being packed.", hint="Pack when nothing writes into the context any more."
    )
    with storage_errors("read", path):
        # A file that became a link since the scan must not lead out of the context.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        with storage_errors("read", path):
            status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise changed
        left = size
        while left:
            with storage_errors("read", path):
                data = file.read(min(left, _CHUNK))
            if not data:
                raise changed
            left -= len(data)
            yield data
        with storage_errors("read", path):
            if file.read(1):
                raise changed


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
        others = [claim for claim in claims if not within(path, claim)]
        scan = _Scan(context, path, rules, others, skip_two_dots=skip_two_dots)
        problem = scan.problem() or scan.run() or (scan.raw() if form == "raw" else None)
        if problem:
            problems.append(f"{label}: {problem}")
        plans.append(LayerPlan(context, kind, path, getattr(entry, "name", "") or path, tuple(scan.found), form))
    if problems:
        listed = problems[0] if len(problems) == 1 else "".join(f"\n  * {problem}" for problem in problems)
        raise InvalidInput(f"The context {context} cannot be packed. {listed}")
    return tuple(plans)


def _context(context: Path) -> None:
    with storage_errors("read the context", context):
        if not context.exists():
            raise InvalidInput(f"The context directory {context} does not exist.")
        if not context.is_dir():
            raise InvalidInput(f"The context {context} is not a directory.")


class _Scan:
    """Walks one layer's path, and the directories above it, in the order of its tar."""

    def __init__(
        self, context: Path, path: str, rules: IgnoreRules, others: Sequence[str], *, skip_two_dots: bool
    ) -> None:
        self.context = context
        self.path = path
        self.rules = rules
        self.others = others
        self.skip_two_dots = skip_two_dots
        self.found: list[FileEntry] = []
        self.files = 0
        self.links: list[str] = []
        self.left_out = 0

    def problem(self) -> str | None:
        """Why the path cannot be a layer, if so."""
        parts = () if self.path == "." else tuple(self.path.split("/"))
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            with storage_errors("read", self.context / name):
                try:
                    mode = (self.context / name).lstat().st_mode
                except (FileNotFoundError, NotADirectoryError):
                    return f"path {self.path} does not exist"
            if stat.S_ISLNK(mode):
                return f"path {name} is a symbolic link, which a ModelKit cannot carry; name the file it points to"
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                return f"path {name} is neither a file nor a directory"
        return None

    def run(self) -> str | None:
        """Collect the entries; returns why there is nothing to pack, if so."""
        self._walk()
        if self.links:
            log.warning(
                "%d symbolic link(s) or special file(s) below %s are not packed, among them %s.",
                len(self.links),
                self.path,
                self.links[0],
            )
        if self.files:
            return None
        if self.links:
            return f"path {self.path} holds only symbolic links or special files, such as {self.links[0]}"
        if not self.left_out:
            return f"path {self.path} is empty"
        log.warning("All files below %s are ignored or belong to other layers.", self.path)
        return None

    def raw(self) -> str | None:
        """Keep the one file alone; returns why the path cannot be a raw layer, if so."""
        self.found = [entry for entry in self.found if not entry.directory]
        if len(self.found) == 1 and self.found[0].name == self.path:
            return None
        return f"path {self.path} is not one file that is packed, as a raw layer must be; name its files, or use tar"

    def _walk(self) -> None:
        parts = () if self.path == "." else tuple(self.path.split("/"))
        for count in range(1, len(parts)):
            if not self._take("/".join(parts[:count])):
                return
        stack = [self.path] if parts else self._children(".")
        while stack:
            name = stack.pop()
            if self._take(name) and (self.context / name).is_dir():
                stack += self._children(name)

    def _children(self, directory: str) -> list[str]:
        with storage_errors("read the directory", self.context / directory):
            names = os.listdir(self.context / directory)  # noqa: PTH208 - Path objects of many files cost much
        prefix = "" if directory == "." else directory + "/"
        return [prefix + name for name in sorted(names, key=os.fsencode, reverse=True)]

    def _take(self, name: str) -> bool:
        """Add one file or directory; False if nothing below it is to be looked at."""
        path = self.context / name
        with storage_errors("read", path):
            status = path.lstat()
        directory = stat.S_ISDIR(status.st_mode)
        if any(within(name, other) for other in self.others) or self.rules.matches(name):
            self.left_out += 1
            return directory and self.rules.has_exceptions
        if not directory and not stat.S_ISREG(status.st_mode):
            self.links.append(name)
            return False
        if self.skip_two_dots and ".." in name:
            log.warning("%s is left out: its name holds '..'.", name)
            self.left_out += 1
            return False
        _carriable(name)
        with storage_errors("read", path):
            if not os.access(path, os.R_OK | (os.X_OK if directory else 0)):
                raise PermissionError(13, "Permission denied")
        self.files += not directory
        size = 0 if directory else status.st_size
        self.found.append(FileEntry(name, stat.S_IMODE(status.st_mode), size, directory))
        return True


def _carriable(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UnsafePath(f"The name {name!r} is not UTF-8; no ModelKit can carry it.", hint="Rename it.") from error
    if name.count("/") >= MAX_DEPTH:
        raise UnsafePath(f"The name {name[:200]} is more than {MAX_DEPTH} levels deep; that cannot be unpacked.")
    if STAGE_MARK in name:
        raise UnsafePath(
            f"{name} was left by an unpacking that was killed, and no ModelKit may carry such a name.",
            hint="Unpack into that directory again, which cleans up, or remove it.",
        )
    if ".." in name:
        raise UnsafePath(
            f"The name {name} holds '..', which kit leaves out when packing and refuses when unpacking.",
            hint="Rename the file, or list it in .kitignore.",
        )
