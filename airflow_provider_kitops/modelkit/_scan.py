"""Walks the files of a context in the order of kit's tar streams."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from airflow_provider_kitops.modelkit._paths import MAX_DEPTH, STAGE_MARK, leads_elsewhere, within
from airflow_provider_kitops.modelkit.ignore import IgnoreRules
from airflow_provider_kitops.oci.disk import storage_error, storage_errors
from airflow_provider_kitops.oci.errors import UnsafePath

log = logging.getLogger(__name__)

_ALL_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_ALL_SEARCH = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class FileEntry(NamedTuple):
    """One file or directory of a layer, as it was when the context was scanned.

    :param name: path below the context, with slashes.
    :param mode: permission bits with setuid, setgid and sticky.
    :param size: bytes; 0 for a directory.
    """

    name: str
    mode: int
    size: int
    directory: bool


class Scan:
    """Walks one layer's path, and the directories above it.

    :param path: clean path of the layer below the context.
    :param others: clean paths of layers that take their files out of this one.
    :param skip_two_dots: leave files with ``..`` in their names out.
    """

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
        # Strings, not Path objects: these cost more than all else where there are many files.
        self._root = f"{context}/"

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
        pending = [[self.path]] if parts else [self._children("")]
        while pending:
            if not pending[-1]:
                pending.pop()
                continue
            name = pending[-1].pop()
            if self._take(name):
                pending.append(self._children(name + "/"))

    def _children(self, prefix: str) -> list[str]:
        """What is in a directory, the last first. The order of code points is that of UTF-8's bytes."""
        directory = self._root + prefix
        with storage_errors("read the directory", directory):
            names = os.listdir(directory)  # noqa: PTH208
        names.sort(reverse=True)
        return [prefix + name for name in names]

    def _take(self, name: str) -> bool:
        """Add one file or directory; whether it is a directory to look into."""
        path = self._root + name
        try:
            status = os.lstat(path)
        except OSError as error:
            raise storage_error("read", path, error) from error
        mode = status.st_mode
        directory = stat.S_ISDIR(mode)
        if (self.others and any(within(name, other) for other in self.others)) or self.rules.matches(name):
            self.left_out += 1
            return directory and self.rules.has_exceptions
        if not directory and not stat.S_ISREG(mode):
            self.links.append(name)
            return False
        if ".." in name and self.skip_two_dots and ".." not in self.path:
            log.warning("%s is left out: its name holds '..'.", name)
            self.left_out += 1
            return False
        carriable(name)
        needed = _ALL_READ | _ALL_SEARCH if directory else _ALL_READ
        # What everybody may read need not be asked for.
        if mode & needed != needed and not os.access(path, os.R_OK | (os.X_OK if directory else 0)):
            raise storage_error("read", path, PermissionError(13, "Permission denied"))
        self.files += not directory
        self.found.append(FileEntry(name, stat.S_IMODE(mode), 0 if directory else status.st_size, directory))
        return directory


def carriable(name: str) -> None:
    """Raise ``UnsafePath`` for a name that no ModelKit can carry."""
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
    if leads_elsewhere(name):
        raise UnsafePath(
            f"The name {name} leads out of the directory on Windows, and is refused when unpacking.", hint="Rename it."
        )
    if ".." in name:
        raise UnsafePath(
            f"The name {name} holds '..', which kit leaves out when packing and refuses when unpacking.",
            hint="Rename the file, list it in .kitignore, or leave such files out: --skip-two-dots, "
            "skip_two_dots=True.",
        )
