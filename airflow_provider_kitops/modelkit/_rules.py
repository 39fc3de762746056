"""The rules of a Kitfile that go beyond its keys and types."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from airflow_provider_kitops.modelkit._paths import clean, is_modelkit_reference
from airflow_provider_kitops.modelkit.kitfile import Kitfile, Where

log = logging.getLogger(__name__)

_PART_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PART_TYPE_MAX = 64
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
_BUCKET_MIN = 3
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class BrokenRule(NamedTuple):
    """What is wrong, and where."""

    where: Where
    text: str


class _Use(NamedTuple):
    label: str
    path: str
    where: Where


def broken_rules(kitfile: Kitfile) -> Iterator[BrokenRule]:
    """All broken rules of ``kitfile``; a version that is not known is only warned about, as kit does."""
    if kitfile.manifest_version != "1.0.0":
        log.warning("manifestVersion is %r; this Kitfile is read as version 1.0.0.", kitfile.manifest_version)
    uses = list(_uses(kitfile))
    by_path: dict[str, list[_Use]] = defaultdict(list)
    for use in uses:
        problem = _bad_path(use)
        if problem:
            yield BrokenRule(use.where, problem)
        else:
            by_path[clean(use.path)].append(use)
    for path, same in by_path.items():
        if len(same) > 1:
            labels = ", ".join(use.label for use in same[:-1])
            yield BrokenRule(same[-1].where, f"{labels} and {same[-1].label} use the same path {path}")
    yield from _parts(kitfile)
    yield from _remote(kitfile)
    yield from _others(kitfile)


def _uses(kitfile: Kitfile) -> Iterator[_Use]:
    model = kitfile.model
    if model:
        # Without a path the model has no layer; with a reference its layer is in another ModelKit.
        if model.path and kitfile.base_reference is None:
            yield _Use(f"model {model.name}".rstrip(), model.path, ("model", "path"))
        for index, part in enumerate(model.parts):
            yield _Use(f"modelpart {part.name or index}", part.path, ("model", "parts", index, "path"))
    for index, dataset in enumerate(kitfile.datasets):
        yield _Use(f"dataset {dataset.name or index}", dataset.path, ("datasets", index, "path"))
    for index, code in enumerate(kitfile.code):
        yield _Use(f"code layer {index}", code.path, ("code", index, "path"))
    for index, docs in enumerate(kitfile.docs):
        yield _Use(f"docs layer {index}", docs.path, ("docs", index, "path"))
    # kit does not compare these with the others, and then cannot unpack what it has packed.
    for index, prompt in enumerate(kitfile.prompts):
        yield _Use(f"prompt {prompt.name or index}", prompt.path, ("prompts", index, "path"))
    for index, server in enumerate(kitfile.mcp_servers):
        yield _Use(f"mcpServer {server.name or index}", server.path, ("mcpServers", index, "path"))


def _bad_path(use: _Use) -> str | None:
    if use.path.startswith("/"):
        return f"absolute paths are not supported in a Kitfile (path {use.path} in {use.label})"
    if _SCHEME.match(use.path):
        return f"the path {use.path} in {use.label} is an address; only files below the context can be packed"
    if "\0" in use.path:
        return f"the path of {use.label} holds a NUL character"
    cleaned = clean(use.path)
    if cleaned == ".." or cleaned.startswith("../"):
        return f"the path {use.path} in {use.label} leaves the context directory"
    return None


def _parts(kitfile: Kitfile) -> Iterator[BrokenRule]:
    for index, part in enumerate(kitfile.model.parts if kitfile.model else ()):
        where = ("model", "parts", index, "type")
        label = f"modelpart {part.name or index}"
        if part.type and not _PART_TYPE.fullmatch(part.type):
            yield BrokenRule(
                where, f"{label} has the invalid type {part.type!r} (letters, digits, dots, dashes and underscores)"
            )
        if len(part.type.encode()) > _PART_TYPE_MAX:
            yield BrokenRule(where, f"{label} has a type longer than {_PART_TYPE_MAX} characters")


def _remote(kitfile: Kitfile) -> Iterator[BrokenRule]:
    taken: dict[str, tuple[str, Where]] = {}
    for index, dataset in enumerate(kitfile.datasets):
        label, remote = f"dataset {dataset.name or index}", dataset.remote_path
        where = ("datasets", index, "remotePath")
        if not remote:
            if dataset.remote_hash:
                yield BrokenRule(("datasets", index, "remoteHash"), f"{label} has a remoteHash but no remotePath")
        elif remote.startswith("s3://"):
            if not dataset.remote_hash:
                yield BrokenRule(where, f"{label} has an s3:// remotePath and needs a remoteHash")
            if problem := _bad_object(remote):
                yield BrokenRule(where, f"the remotePath {remote} of {label} {problem}")
        elif not is_modelkit_reference(remote):
            yield BrokenRule(where, f"the remotePath {remote} of {label} is neither s3:// nor a ModelKit reference")
        else:
            if dataset.remote_hash:
                log.warning("The remoteHash of %s is not used: its remotePath is a ModelKit reference.", label)
            taken[clean(dataset.path)] = (label, ("datasets", index, "path"))
    for use in _uses(kitfile) if taken else ():
        path = clean(use.path)
        parts = path.split("/")
        for above in (".", *("/".join(parts[:count]) for count in range(1, len(parts) + 1))):
            label, own = taken.get(above, ("", use.where))
            if use.where != own:
                yield BrokenRule(
                    use.where, f"the path {use.path} in {use.label} lies inside the remote ModelKit of {label}"
                )


def _bad_object(address: str) -> str | None:
    """What keeps an ``s3://`` address from naming one object, which is what unpacking asks for."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if posixpath.basename(key) in ("", ".", ".."):
        return "names no single object; write s3://bucket/key"
    if len(bucket) < _BUCKET_MIN:
        return f"has the bucket {bucket!r}, which is too short: buckets have {_BUCKET_MIN} letters or more"
    if not _BUCKET.fullmatch(bucket):
        return f"has the bucket {bucket!r}, which is no name of one"
    return None


def _others(kitfile: Kitfile) -> Iterator[BrokenRule]:
    seen: set[str] = set()
    for index, server in enumerate(kitfile.mcp_servers):
        where = ("mcpServers", index, "path")
        label = f"mcpServer {server.name or index}"
        if not server.path.endswith(".mcpb"):
            yield BrokenRule(where, f"the path {server.path!r} of {label} must end in .mcpb")
        if not server.name or server.name in seen:
            yield BrokenRule(("mcpServers", index, "name"), f"{label} needs a name of its own")
        seen.add(server.name)
