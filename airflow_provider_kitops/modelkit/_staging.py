"""A tree that is built out of sight and then put in its place whole, or not at all.

While it is put in place a journal says what is being moved. A process killed in the middle leaves the journal, and the
next one that works on the same directory takes the moves back before it begins.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from airflow_provider_kitops.modelkit._collisions import folded
from airflow_provider_kitops.modelkit._paths import STAGE_MARK
from airflow_provider_kitops.modelkit._untar import safe_name
from airflow_provider_kitops.oci.disk import said, storage_errors, write_file
from airflow_provider_kitops.oci.errors import Conflict, LimitExceeded, StorageError, UnsafePath, VerificationFailed

_SECONDS_UNTIL_STALE = 60
_log = logging.getLogger(__name__)
# What the disk may say at one time and not at another, whatever is in the directory.
_REFUSED = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Move(NamedTuple):
    """One file or whole directory to move.

    :param replaces: something is there, which is kept until the end.
    :param inode: by which it is known again after it has been moved,
    :param modified: together with the time of a file's content (``st_mtime_ns``), because numbers are used again;
        0 for a directory.
    """

    path: str
    replaces: bool
    inode: int
    modified: int

    @classmethod
    def of(cls, path: str, replaces: bool, status: os.stat_result) -> _Move:
        """The move of what ``status`` is about."""
        return cls(path, replaces, status.st_ino, 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns)

    def is_at(self, status: os.stat_result) -> bool:
        """Whether this is what ``status`` is about."""
        return self == _Move.of(self.path, self.replaces, status)


class _Claim(NamedTuple):
    """What brought a path.

    :param kit: number of the ModelKit.
    :param directory: and not a file.
    """

    kit: int
    directory: bool


# There may be a million of these, of a few kinds: each name has no more than a reference to one that others share.
_claim = functools.cache(_Claim)


class Stage:
    """Files and directories on their way into ``directory``. A context manager: what is not committed is gone.

    :param directory: where they will be; need not exist.
    :param overwrite: existing files are replaced.
    :param ignore_existing: existing files are kept.
    :param allow_case_collisions: names may differ in nothing but capital letters or the form of their Unicode.
    :param on_implied: called before a directory is made that has no entry of its own so far; may raise.
    :param on_name: called with the bytes of memory that a name takes, before it is remembered; may raise.
    :raises StorageError: the directory cannot be written to.
    :raises UnsafePath: it is not a directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        overwrite: bool,
        ignore_existing: bool,
        allow_case_collisions: bool = False,
        on_implied: Callable[[], None] = lambda: None,
        on_name: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.directory = directory
        self.overwrite = overwrite
        self.ignore_existing = ignore_existing
        self._on_implied = on_implied
        self._on_name = on_name
        self._key: Callable[[str], str] = str if allow_case_collisions else folded
        self._claims: dict[str, _Claim] = {}
        self._spelled: dict[str, str] = {}
        self._modes: dict[str, tuple[tuple[int, int], int]] = {}
        self._lock = threading.Lock()
        self._made_parents: list[Path] = []

    def __enter__(self) -> Stage:
        directory = self.directory
        with storage_errors("unpack into", directory):
            if directory.exists() and not directory.is_dir():
                raise Conflict(f"{directory} is not a directory.", hint="Name another directory.")
            self.directory = directory = directory.resolve()
            for parent in reversed(directory.parents):
                if not parent.exists():
                    parent.mkdir()
                    self._made_parents.append(parent)
            # Inside an existing directory, because that may be a mount whose surroundings are another file system.
            inside = directory.is_dir()
            if inside:
                with _alone(directory):
                    _recover(directory)
            else:  # stages beside it that nobody works on any longer; none has moved anything
                _recover(directory)
            self.root = Path(
                tempfile.mkdtemp(prefix=STAGE_MARK, dir=directory)
                if inside
                else tempfile.mkdtemp(prefix=f".{directory.name}{STAGE_MARK}", dir=directory.parent)
            )
            try:
                # Locked before it has its name: who finds it unlocked may take it for that of a killed process.
                self._lock_file = os.open(self.root / "lock.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
                (self.root / "lock.new").rename(self.root / "lock")
                self.tree = self.root / "tree"
                self.tree.mkdir()
            except BaseException:
                _remove(self.root)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with storage_errors("clean up", self.root):
            # A journal that is still there says that files are neither here nor there: the next one takes them back.
            if not os.path.lexists(self.root / "journal"):
                _remove(self.root)
            os.close(self._lock_file)
        if not self.directory.exists():
            for parent in reversed(self._made_parents):
                with suppress(OSError):  # someone else uses it by now
                    parent.rmdir()

    def add_directory(self, name: str, mode: int, order: tuple[int, int]) -> None:
        """Make a directory; it may be there already.

        :param order: number of the ModelKit and of the layer; the last one's mode counts.
        """
        with self._lock:
            parent = name.rpartition("/")[0]
            if parent:
                self._imply(parent, order[0])
            self._make(name, order[0])
            if name not in self._modes or order >= self._modes[name][0]:
                self._modes[name] = (order, mode)

    @contextmanager
    def add_file(self, name: str, mode: int, order: tuple[int, int]) -> Iterator[int | None]:
        """Make a file and give its descriptor to write to, or ``None`` if an earlier ModelKit's file is kept.

        :raises VerificationFailed: the same ModelKit has the file twice, or needs a directory in its place.
        :raises Conflict: another ModelKit has the file, and neither overwriting nor keeping was asked for.
        """
        path = self.tree / name
        with self._lock:
            parent = name.rpartition("/")[0]
            if parent:
                self._imply(parent, order[0])
            before = self._claimed(name)
            if before is not None:
                if before.kit == order[0] or before.directory:
                    raise VerificationFailed(f"{name} is in the ModelKit more than once.")
                if not self.overwrite and not self.ignore_existing:
                    raise Conflict(
                        f"{name} is in the ModelKit and in the one that it is based on.",
                        hint="Overwrite or keep existing files (-o or -i; overwrite=True or ignore_existing=True), "
                        "or unpack the two into different directories.",
                    )
            if before is None or self.overwrite:
                self._claim(name, order[0], directory=False)
        if before is not None and not self.overwrite:
            yield None
            return
        with storage_errors("write", path):
            if before is not None:
                path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
            with storage_errors("write", path):
                os.fchmod(descriptor, mode & 0o777)
        finally:
            os.close(descriptor)

    def _imply(self, name: str, kit: int) -> None:
        """Make a directory that something is to be in, and its parents; the lock is held."""
        if name in self._modes:
            return
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            if self._claimed(path) is None:
                self._on_implied()
            self._make(path, kit)

    def _make(self, path: str, kit: int) -> None:
        """Make a directory in the tree, in one that is there; the lock is held."""
        before = self._claimed(path)
        if before is None:
            self._claim(path, kit, directory=True)
            with storage_errors("make the directory", self.tree / path):
                (self.tree / path).mkdir(mode=0o700)
            self._modes[path] = ((-1, -1), 0o755)
        elif not before.directory:
            raise VerificationFailed(f"{path} is a file and a directory at once.")

    def _claimed(self, path: str) -> _Claim | None:
        """What brought a path; the lock is held.

        :raises UnsafePath: something has a name that is the same on a disk that does not tell capital letters apart.
        """
        key = self._key(path)
        claim = self._claims.get(key)
        if claim is not None and (other := self._spelled.get(key, key)) != path:
            raise UnsafePath(
                f"The ModelKit holds {other!r} and {path!r}, which are one and the same on disks of macOS and Windows.",
                hint="Allow case collisions (--allow-case-collisions, allow_case_collisions=True) where both can be.",
            )
        return claim

    def _claim(self, path: str, kit: int, *, directory: bool) -> None:
        """Remember what brought a path; the lock is held."""
        key = self._key(path)
        if key not in self._claims:
            # What Python needs for it, not its length: one character beyond Latin-1 doubles or quadruples the rest.
            self._on_name(sys.getsizeof(path))
            if key is not path:
                self._on_name(sys.getsizeof(key))
                self._spelled[key] = path
        self._claims[key] = _claim(kit, directory)

    def commit(self, *, same_bytes: frozenset[str] = frozenset()) -> None:
        """Put the tree into its directory: all of it, or nothing.

        :param same_bytes: files that may exist if their content is the same, and only then be kept.
        :raises Conflict: something is in the way.
        :raises UnsafePath: a link is in the way.
        :raises StorageError: the disk refuses. If it refuses to take back what has been moved, too, the files that were
            replaced stay where the error says, and the next one that works on the directory takes them back.
        """
        with storage_errors("unpack into", self.directory):
            for name, (_, mode) in self._modes.items():
                # A directory that its owner may not enter could not be filled or removed.
                (self.tree / name).chmod(mode & 0o777 | 0o700)
            if not self.directory.exists():
                self.tree.rename(self.directory)
                return
            with _alone(self.directory):
                # Taken back later, what a process killed since then had moved would take with it what is moved now.
                _recover(self.directory, warn=False)
                self._move(list(self._plan("", same_bytes)))

    def _move(self, moves: list[_Move]) -> None:
        """Move all into the directory, which no other process that unpacks changes meanwhile."""
        (self.root / "old").mkdir()
        journal = self.root / "journal"
        write_file(journal, json.dumps({"directory": str(self.directory), "moves": moves}).encode())
        try:
            for index, move in enumerate(moves):
                self._apply(index, move)
            # From here on the moves stand.
            journal.unlink()
        except BaseException as error:
            self._take_back(moves, error)
            raise

    def _plan(self, below: str, same_bytes: frozenset[str]) -> Iterator[_Move]:
        """What to move for the part of the tree in ``below``: directories that do not exist yet are moved whole."""
        with _opened(self.directory, below) as place:
            names = sorted(os.listdir(self.tree / below if below else self.tree))  # noqa: PTH208
            for name in names:
                path = f"{below}/{name}" if below else name
                ours_is_directory = (self.tree / path).is_dir()
                try:
                    theirs = os.stat(name, dir_fd=place, follow_symlinks=False)
                except FileNotFoundError:
                    yield self._planned(path, replaces=False)
                    continue
                if ours_is_directory:
                    if stat.S_ISLNK(theirs.st_mode):
                        raise UnsafePath(f"{self.directory / path} is a symbolic link; nothing is unpacked through it.")
                    if not stat.S_ISDIR(theirs.st_mode):
                        raise Conflict(f"{self.directory / path} exists and is not a directory.")
                    yield from self._plan(path, same_bytes)
                elif self._replaces(path, theirs, same_bytes):
                    yield self._planned(path, replaces=True)

    def _planned(self, path: str, *, replaces: bool) -> _Move:
        return _Move.of(path, replaces, (self.tree / path).lstat())

    def _replaces(self, path: str, theirs: os.stat_result, same_bytes: frozenset[str]) -> bool:
        """Whether an existing file is to be replaced; if not, it is kept."""
        place = self.directory / path
        if path in same_bytes and stat.S_ISREG(theirs.st_mode):
            ours = self.tree / path
            if theirs.st_size == ours.stat().st_size and place.read_bytes() == ours.read_bytes():
                return False
        elif self.ignore_existing:
            return False
        if not self.overwrite:
            raise Conflict(
                f"{place} already exists.",
                hint="Overwrite or keep existing files (-o or -i; overwrite=True or ignore_existing=True), or name "
                "another directory.",
            )
        if not stat.S_ISREG(theirs.st_mode):
            raise Conflict(f"{place} exists and is not a regular file.")
        return True

    def _apply(self, index: int, move: _Move) -> None:
        parent, _, name = move.path.rpartition("/")
        with _opened(self.directory, parent) as place:
            if move.replaces:
                os.rename(name, self.root / "old" / str(index), src_dir_fd=place)
            os.rename(self.tree / move.path, name, dst_dir_fd=place)

    def _take_back(self, moves: list[_Move], error: BaseException) -> None:
        """Take the moves back because of ``error``, and forget them if that works."""
        try:
            _take_back(self.root, self.directory, moves)
            (self.root / "journal").unlink(missing_ok=True)
        except OSError as second:
            raise _stuck(self.root, self.directory, f"{said(error)}; then", second) from error


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other process moves files into ``directory``, and keep others from it."""
    path = directory / f"{STAGE_MARK}lock"
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever had it before has removed it; others may have locked a new one.
        with suppress(FileNotFoundError):
            if path.lstat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):  # left there, it is nobody's, and taken by the next one
            path.unlink()
        os.close(descriptor)


@contextmanager
def _opened(directory: Path, below: str) -> Iterator[int]:
    """A descriptor of a directory inside ``directory``, reached without following any link."""
    current = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in below.split("/") if below else ():
            following = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _take_back(root: Path, directory: Path, moves: list[_Move]) -> None:
    """Undo whatever of ``moves`` has been done, in the opposite order."""
    for index, move in reversed(list(enumerate(moves))):
        parent, _, name = move.path.rpartition("/")
        ours, old = root / "tree" / move.path, root / "old" / str(index)
        with _opened(directory, parent) as place:
            with suppress(FileNotFoundError):
                # What somebody else has put there since stays.
                if not move.is_at(os.stat(name, dir_fd=place, follow_symlinks=False)):
                    continue
                os.rename(name, ours, src_dir_fd=place)
            if os.path.lexists(old):
                os.rename(old, name, dst_dir_fd=place)


def _stuck(root: Path, directory: Path, before: str, error: OSError) -> StorageError:
    """The error for moves that could not be taken back.

    :param before: why they were to be, or empty.
    """
    return StorageError(
        f"Could not unpack into {directory}: {before} what had been moved could not be moved back: {said(error)}.",
        hint=f"The files that were replaced are in {root / 'old'}: leave it alone. Once the disk works again, "
        f"unpack into {directory} once more: that puts them back before it begins.",
    )


def _recover(directory: Path, *, warn: bool = True) -> None:
    """Clean up after processes that were killed while they unpacked into ``directory``.

    What is found is trusted only as far as another process of this user could have made it: a hostile ModelKit that
    another tool unpacked here, or another user of a shared directory, may have left something that looks alike.
    """
    stale = [*directory.parent.glob(f".{_escape(directory.name)}{STAGE_MARK}*")]
    if directory.is_dir():
        stale += [path for path in directory.glob(f"{STAGE_MARK}*") if path.name != f"{STAGE_MARK}lock"]
    strange = []
    for root in stale:
        with suppress(FileNotFoundError):  # another process cleans up as well
            if not (_ours(root) and _settle(root, directory)):
                strange.append(root)
    if strange and warn:
        _log.warning(
            "%s looks like the rest of a killed unpacking, but is damaged or not this user's; left alone (%d in all).",
            strange[0],
            len(strange),
        )


def _ours(root: Path) -> bool:
    """Whether only this user can have made and filled it."""
    status = root.lstat()
    # Without the setgid bit, which a directory has from its parent.
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o700


def _settle(root: Path, directory: Path) -> bool:
    """Take back what a killed process had begun, and remove its stage; false if what is there is not sound."""
    try:
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        # Killed before it was locked, or while it was removed; a minute is far longer than either takes.
        if time.time() - root.lstat().st_mtime > _SECONDS_UNTIL_STALE:
            _remove(root)
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        moves = _journal(root)
        if moves is None:
            return False
        try:
            _take_back(root, directory, moves)
        except OSError as error:
            if error.errno in _REFUSED:
                raise _stuck(root, directory, "an earlier unpacking ended half-way, and", error) from error
            # Someone has changed the directory since. Tried again later, it would undo what is unpacked until then.
            (root / "journal").rename(root / "journal.failed")
            return False
        (root / "journal").unlink(missing_ok=True)
        _remove(root)
    except BlockingIOError:
        pass  # still at work
    finally:
        os.close(descriptor)
    return True


def _journal(root: Path) -> list[_Move] | None:
    """The moves that a killed process had begun, none if it had not; ``None`` if what is there is no journal."""
    if os.path.lexists(root / "journal.failed"):
        return None
    try:
        descriptor = os.open(root / "journal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    except OSError:
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            moves = [_Move(*move) for move in json.load(file)["moves"]]
        if all(safe_name(move.path.encode(), str(root)) == move.path != "" for move in moves):
            return moves
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UnsafePath, LimitExceeded):
        pass
    return None


def _remove(root: Path) -> None:
    """Remove a stage as far as possible, its lock last: without it nobody could tell that it is to be removed."""
    with suppress(OSError):
        for name in os.listdir(root):  # noqa: PTH208
            if name != "lock":
                shutil.rmtree(root / name, ignore_errors=True)
                with suppress(OSError):
                    (root / name).unlink()
    shutil.rmtree(root, ignore_errors=True)


def _escape(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
