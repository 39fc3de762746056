"""What a tag named before, kept under immutable tags ``<tag>-<UTC time>-<short digest>``.

The time is when the digest was displaced. Times of one tag's entries only ever rise: a move in the same second as
the last one, or made by a machine whose clock is behind, is dated one second after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.reference import is_tag
from airflow_provider_kitops.oci.target import Target

_TIME = "%Y%m%dT%H%M%SZ"
_SHORT = 12


@dataclass(frozen=True)
class HistoryEntry:
    """A digest that the tag named once.

    :param tag: the immutable tag that keeps it.
    :param digest: whole digest.
    :param displaced: when the tag was moved away from it (UTC).
    """

    tag: str
    digest: str
    displaced: datetime


def history(target: Target, tag: str) -> list[HistoryEntry]:
    """What ``tag`` named before, oldest first; empty for a tag that never moved.

    One listing of the tags and one request per entry.
    """
    return [HistoryEntry(one.tag, target.resolve(one.tag).digest, one.displaced) for one in kept(target.tags(), tag)]


@dataclass(frozen=True)
class Kept:
    """A history tag as its name tells it.

    :param tag: the whole tag.
    :param displaced: time in it.
    :param short: first hexadecimal digits of the digest.
    """

    tag: str
    displaced: datetime
    short: str

    def may_be(self, digest: str | None) -> bool:
        """Whether the short digest is the beginning of ``digest``; the tag must be resolved to be sure."""
        return digest is not None and _short(digest) == self.short


def kept(tags: Iterable[str], tag: str) -> list[Kept]:
    """The history tags of ``tag`` among ``tags``, oldest first."""
    form = re.compile(re.escape(tag) + r"-(\d{8}T\d{6}Z)-([0-9a-f]{12})")
    found = []
    for one in tags:
        if match := form.fullmatch(one):
            try:
                time = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            except ValueError:  # digits, but no date: somebody's own tag
                continue
            found.append(Kept(one, time, match[2]))
    return sorted(found, key=lambda one: (one.displaced, one.tag))


def check_tag(tag: str) -> None:
    """Raise ``InvalidInput`` if ``tag`` is malformed, or so long that its history tags would be."""
    if not is_tag(tag) or not is_tag(_entry(tag, datetime.now(UTC), "0" * _SHORT)):
        raise InvalidInput(
            f"{tag[:200]!r} is no tag to promote to.",
            hint="A tag that keeps a history has at most 98 characters of A-Z a-z 0-9 _ . -",
        )


def history_tag(tag: str, digest: str, now: datetime, last: Kept | None) -> str:
    """The tag under which ``digest`` is kept when ``tag`` leaves it.

    :param now: with a time zone.
    :param last: the newest entry so far.
    """
    time = now.astimezone(UTC).replace(microsecond=0)
    if last is not None and time <= last.displaced:
        time = last.displaced + timedelta(seconds=1)
    return _entry(tag, time, _short(digest))


def last_good(entries: Sequence[Kept], current: str) -> Kept | None:
    """What the tag named before ``current`` was first promoted; None if nothing.

    The sequence of all that the tag ever named is read as a path: coming back to a digest undoes what came between.
    After A, B, C and a rollback to B, the last good digest is A: neither C, which was taken out, nor B itself.
    """
    path: list[str] = []
    newest = {entry.short: entry for entry in entries}
    for short in [*(entry.short for entry in entries), _short(current)]:
        if short in path:
            del path[path.index(short) + 1 :]
        else:
            path.append(short)
    return newest[path[-2]] if len(path) > 1 else None


def displaced_at(entry_tag: str, tag: str) -> datetime | None:
    """The time in a history tag of ``tag``; None if it is none."""
    entries = kept([entry_tag], tag)
    return entries[0].displaced if entries else None


def is_history_tag(tag: str) -> bool:
    """Whether ``tag`` has the form of a history tag, of whatever tag."""
    return re.fullmatch(r".+-\d{8}T\d{6}Z-[0-9a-f]{12}", tag) is not None


def _short(digest: str) -> str:
    return digest.partition(":")[2][:_SHORT]


def _entry(tag: str, time: datetime, short: str) -> str:
    return f"{tag}-{time.strftime(_TIME)}-{short}"
