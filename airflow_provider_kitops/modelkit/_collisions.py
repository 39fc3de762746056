"""Names that are one and the same on a disk that does not tell capital letters, or forms of Unicode, apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable


def folded(name: str) -> str:
    """What all spellings of a name have in common: NFC and case folding (Unicode, D145, canonical caseless match).

    The very same object where nothing changes, so that it costs no memory to keep both.
    """
    if name.isascii():
        result = name.lower()
    else:
        result = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    return name if result == name else result


def first_collision(names: Callable[[], Iterable[str]]) -> tuple[str, str] | None:
    """Two different paths that are one and the same on such a disk, if there are any.

    :param names: gives paths, and each of their directories; any of them any number of times.
    """
    # Paths that collide are, or lie below, two different ones of one directory. So it is enough to look at last parts,
    # and to keep those that folding changes: the names of most contexts need nothing to be kept.
    changed: dict[str, str] = {}
    for name in names():
        start = name.rfind("/") + 1
        part = name[start:]
        fold = folded(part)
        if fold is not part:
            other = changed.setdefault(name[:start] + fold, name)
            if other != name:
                return other, name
    if changed:
        for name in names():
            if name in changed:
                return changed[name], name
    return None
