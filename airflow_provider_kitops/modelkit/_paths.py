"""Paths as a Kitfile writes them: relative to the context directory, with slashes."""

from __future__ import annotations

import posixpath
import re

from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.reference import Reference

#: Part of the names under which trees are staged and, after a kill, found again: no ModelKit may carry such a name.
STAGE_MARK = ".modelkit-unpack-"

#: Parts of one name; each costs an open file and a stack frame when the tree is moved or removed.
MAX_DEPTH = 128


def clean(path: str) -> str:
    """The shortest path that means the same (``filepath.Clean`` of Go); empty becomes ``.``."""
    return posixpath.normpath(path) if path else "."


def within(path: str, parent: str) -> bool:
    """Whether ``path`` is ``parent`` or lies below it; both cleaned and relative."""
    return parent in (".", path) or path.startswith(parent + "/")


_DRIVE = re.compile(r"[A-Za-z]:(?:$|[/\\])")


def leads_elsewhere(name: str) -> bool:
    """Whether ``name`` is an ordinary one here and absolute, a drive's, a share's or the parent's on Windows."""
    return name.startswith("\\") or _DRIVE.match(name) is not None or "..\\" in name or "\\.." in name


def is_modelkit_reference(path: str) -> bool:
    """Whether kit takes ``path`` for the reference of a ModelKit: it holds ``:`` or ``@`` and parses as one."""
    if ":" not in path and "@" not in path:
        return False
    try:
        Reference.parse(path)
    except InvalidReference:
        return False
    return True
