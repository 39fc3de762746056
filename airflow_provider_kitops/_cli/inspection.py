"""Looking at ModelKits: list, info, inspect, diff."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops._cli.options import Verbs, add_verb
from airflow_provider_kitops._cli.session import Session, shown
from airflow_provider_kitops.oci.description import describe
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.progress import size_text
from airflow_provider_kitops.oci.reference import Reference

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.store import Store

DIFFERENT = 10


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    listing = add_verb(verbs, "list", _list, "list ModelKits")
    listing.add_argument(
        "reference",
        nargs="?",
        default="",
        metavar="REPOSITORY",
        help="only this repository; REGISTRY/ = all of a registry (default: all of the local layout)",
    )
    info = add_verb(verbs, "info", _info, "print the Kitfile of a ModelKit")
    info.add_argument("reference", metavar="REF")
    inspect = add_verb(verbs, "inspect", _inspect, "print the manifest and the config of a ModelKit")
    inspect.add_argument("reference", metavar="REF")
    diff = add_verb(verbs, "diff", _diff, "compare two ModelKits; exit code 10 when they differ")
    diff.add_argument("first", metavar="REF")
    diff.add_argument("second", metavar="REF")


def _list(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.listing import list_modelkits

    store, repositories = _repositories(session, options.reference)
    entries = [entry for repository in repositories for entry in list_modelkits(store.target(repository))]
    if not entries and options.reference and not options.reference.endswith("/"):
        store.check_repository(
            options.reference
        )  # one without ModelKits is listed as such, one that is not there is not
    rows = [
        {
            "repository": entry.repository,
            "digest": entry.digest,
            "tags": list(entry.tags),
            "size": entry.size,
            "name": entry.name,
            "version": entry.version,
        }
        for entry in entries
    ]
    table = [("REPOSITORY", "TAGS", "DIGEST", "SIZE", "NAME", "VERSION")]
    for entry in entries:
        tags = ", ".join(entry.tags) or "-"
        size = size_text(entry.size)
        table.append((entry.repository, tags, entry.digest, size, entry.name or "-", entry.version or "-"))
    session.answer({"modelkits": rows}, columns(table))
    return 0


def _repositories(session: Session, text: str) -> tuple[Store, list[str]]:
    if "://" in text:
        raise InvalidReference(
            "A registry is written without scheme.", hint="Write host[:port]/, and --plain-http for one without TLS."
        )
    if text.endswith("/"):
        store = session.store(text.rstrip("/"))
        return store, [f"{text}{repository}" for repository in store.repositories()]
    if not text:
        store = session.store("")
        if store.missing_layout:
            session.note(f"modelkit: There is no layout in {store.missing_layout} yet.")
        return store, store.repositories()
    reference = Reference.parse(text)
    if "/" not in text and reference.tag.isdecimal() and ("." in text or reference.repository == "localhost"):
        raise InvalidReference(f"{text!r} names one ModelKit by its tag.", hint=f"For a whole registry write {text}/.")
    if reference.selector:
        raise InvalidReference(f"{text!r} names one ModelKit, not a repository.", hint="Use info or inspect.")
    return session.store(reference.registry), [text]


def _info(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.modelkit import ModelKit

    _, reference, target, descriptor = session.resolve(options.reference)
    kit = ModelKit.read(target, descriptor.digest)
    kitfile = json.loads(kit.kitfile.to_config_json())
    session.answer(describe(target, reference, descriptor, kitfile=kitfile), kit.kitfile.to_yaml())
    return 0


def _inspect(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.modelkit import ModelKit

    _, reference, target, descriptor = session.resolve(options.reference)
    kit = ModelKit.read(target, descriptor.digest)
    answer: dict[str, Any] = describe(
        target, reference, descriptor, manifest=json.loads(kit.manifest), config=json.loads(kit.config)
    )
    session.answer(answer, json.dumps(answer, indent=2, ensure_ascii=False))
    return 0


def _diff(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.diff import diff
    from airflow_provider_kitops.modelkit.modelkit import ModelKit

    sides = [session.resolve(text) for text in (options.first, options.second)]
    kits = [ModelKit.read(target, descriptor.digest) for _, _, target, descriptor in sides]
    found = diff(*kits)
    names = [str(reference.at(descriptor.digest)) for _, reference, _, descriptor in sides]
    layers = [
        {
            "kind": change.kind,
            "path": change.path,
            "old": change.old.descriptor.digest if change.old else None,
            "new": change.new.descriptor.digest if change.new else None,
        }
        for change in found.layers
    ]
    fields = [{"path": change.path, "old": change.old, "new": change.new} for change in found.fields]
    answer = {"identical": not found, "old": names[0], "new": names[1], "layers": layers, "fields": fields}
    lines = [f"--- {names[0]}", f"+++ {names[1]}"]
    lines += [
        f"{_mark(each)} {each['kind']} {shown(str(each['path']))}: {each['old']} -> {each['new']}" for each in layers
    ]
    lines += [f"{_mark(each)} {shown(each['path'])}: {_text(each['old'])} -> {_text(each['new'])}" for each in fields]
    session.answer(answer, "\n".join(lines) if found else f"{names[0]} and {names[1]} hold the same")
    return DIFFERENT if found else 0


def _mark(change: dict[str, Any]) -> str:
    return "+" if change["old"] is None else "-" if change["new"] is None else "~"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as a table for people, each in one line whatever its cells hold."""
    rows = [tuple(shown(cell) for cell in row) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
