"""Removing what a program has left, however it is nested."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class _Level:
    """A directory on the way down: which it is, and the directories in it that are still to be removed."""

    status: os.stat_result
    names: list[str]


def remove_tree(path: Path) -> None:
    """Remove a directory and all that is in it, as ``empty_tree`` does.

    :raises OSError: the first refusal, after everything else was tried.
    """
    empty_tree(path)
    path.rmdir()


def empty_tree(path: Path, *, keep: str = "") -> None:
    """Remove all that is in a directory, without following links.

    A program may nest directories deeper than Python recurses, than a path is long, and than files may be open: this
    goes down and up with one directory open at a time. What cannot be removed is left, and the rest is removed.

    :param keep: a directory in it that is left alone.
    :raises OSError: the first refusal, after everything else was tried.
    """
    refused: list[OSError] = []
    here = os.open(path, _DIRECTORY)
    try:
        way = [_level(here, refused)]
        if keep in way[0].names:
            way[0].names.remove(keep)
        while True:
            if way[-1].names:
                try:
                    below = os.open(way[-1].names[-1], _DIRECTORY, dir_fd=here)
                except OSError as error:
                    # An empty one need not be readable.
                    _remove_directory(way[-1].names.pop(), here, error, refused)
                    continue
                os.close(here)
                here = below
                way.append(_level(here, refused))
                continue
            way.pop()
            if not way:
                break
            above = os.open("..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = above
            if not os.path.samestat(os.fstat(here), way[-1].status):
                raise OSError(f"{path} was changed while it was removed")
            _remove_directory(way[-1].names.pop(), here, None, refused)
    finally:
        os.close(here)
    if refused:
        raise refused[0]


def _level(here: int, refused: list[OSError]) -> _Level:
    """Remove all but the directories from an open directory."""
    names = []
    try:
        with os.scandir(here) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError as error:
        refused.append(error)
        found = []
    for name, directory in found:
        if directory:
            names.append(name)
            continue
        try:
            os.unlink(name, dir_fd=here)
        except OSError as error:
            refused.append(error)
    return _Level(os.fstat(here), names)


def _remove_directory(name: str, here: int, reason: OSError | None, refused: list[OSError]) -> None:
    """:param reason: why it could not be opened, which says more than that it is not empty."""
    try:
        os.rmdir(name, dir_fd=here)
    except OSError as error:
        refused.append(reason or error)
