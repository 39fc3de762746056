"""Looking at ModelKits: list, info, inspect, diff."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops._cli.options import Verbs, add_label, add_verb, pairs
from airflow_provider_kitops._cli.session import Session, shown, spoken
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
    info.add_argument(
        "-f", "--field", type=_field, metavar="PATH", help="only this field, such as .model.parts[0].name (. = all)"
    )
    add_label(info)
    inspect = add_verb(
        verbs, "inspect", _inspect, "print the manifest and the config of a ModelKit, or what an index holds"
    )
    inspect.add_argument("reference", metavar="REF")
    add_label(inspect)
    diff = add_verb(verbs, "diff", _diff, "compare two ModelKits; exit code 10 when they differ")
    diff.add_argument("first", metavar="REF")
    diff.add_argument("second", metavar="REF")
    add_label(diff, "--old-label", "an index that the first REF names")
    add_label(diff, "--new-label", "an index that the second REF names")
    diff.add_argument(
        "--files", action="store_true", help="also which files differ inside the layers, which are then read"
    )


def _list(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.listing import list_modelkits

    store, repositories = _repositories(session, options.reference)
    entries = [entry for repository in repositories for entry in list_modelkits(store.target(repository))]
    if not entries and options.reference and not options.reference.endswith("/"):
        # One without ModelKits is listed as such, one that is not there is not.
        store.check_repository(options.reference)
    rows = [{"repository": entry.repository, **entry.to_json()} for entry in entries]
    table = [("REPOSITORY", "TAGS", "DIGEST", "SIZE", "NAME", "VERSION")]
    for entry in entries:
        tags = ", ".join(entry.tags) or "-"
        size = size_text(entry.size)
        name = entry.name if entry.modelkits is None else f"index of {len(entry.modelkits)}"
        table.append((entry.repository, tags, entry.digest, size, name or "-", entry.version or "-"))
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
    from airflow_provider_kitops.modelkit.fields import field_of
    from airflow_provider_kitops.modelkit.modelkit import ModelKit

    _, reference, target, descriptor = session.resolve(options.reference)
    kit = ModelKit.read(target, descriptor.digest, pairs("--label", options.label))
    if options.field is None:
        kitfile = field_of(kit.kitfile, "")
        session.answer(describe(target, reference, kit.descriptor, kitfile=kitfile), kit.kitfile.to_yaml())
        return 0
    value = field_of(kit.kitfile, options.field)
    answer = describe(target, reference, kit.descriptor, field=options.field, value=value)
    session.answer(answer, value if isinstance(value, str) else _text(value))
    return 0


def _inspect(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.inspect import inspect

    _, reference, target, descriptor = session.resolve(options.reference)
    found, fields = inspect(target, descriptor.digest, pairs("--label", options.label))
    answer: dict[str, Any] = describe(target, reference, found, **fields)
    session.answer(answer, json.dumps(answer, indent=2, ensure_ascii=False))
    return 0


def _diff(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.diff import diff, diff_files
    from airflow_provider_kitops.modelkit.modelkit import ModelKit

    sides = [session.resolve(text) for text in (options.first, options.second)]
    labels = pairs("--old-label", options.old_label), pairs("--new-label", options.new_label)
    kits = [
        ModelKit.read(target, descriptor.digest, each)
        for (_, _, target, descriptor), each in zip(sides, labels, strict=True)
    ]
    found = diff(*kits)
    names = [str(side[1].at(kit.descriptor.digest)) for side, kit in zip(sides, kits, strict=True)]
    said = [spoken({"reference": name}) for name in names]
    answer: dict[str, Any] = {"old": names[0], "new": names[1], **found.to_json()}
    lines = [f"--- {said[0]}", f"+++ {said[1]}"]
    for each in answer["layers"]:
        digests = f"{each['old'] or 'none'} -> {each['new'] or 'none'}"
        lines.append(f"{_mark(each)} {each['kind']} {shown(str(each['path']))}: {digests}")
    for each in answer["fields"]:
        lines.append(f"{_mark(each)} {shown(each['path'])}: {_side(each['old'])} -> {_side(each['new'])}")
    if options.files:
        old, new = sides[0][2], sides[1][2]
        with session.progress() as hook:
            files = [file for change in found.layers for file in diff_files(old, new, change, on_progress=hook)]
        answer["files"] = [asdict(file) for file in files]
        for each in answer["files"]:
            lines.append(f"{_mark(each)} {shown(each['path'])}: {_state(each['old'])} -> {_state(each['new'])}")
    session.answer(answer, "\n".join(lines) if found else f"{said[0]} and {said[1]} hold the same")
    return DIFFERENT if found else 0


def _field(text: str) -> str:
    """The path that was given. An empty one, of a variable that is not set, would mean the whole Kitfile."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; . means the whole Kitfile")
    return text


def _mark(change: dict[str, Any]) -> str:
    return "+" if change["old"] is None else "-" if change["new"] is None else "~"


def _state(state: dict[str, Any] | None) -> str:
    if state is None:
        return "none"
    if not state["digest"]:
        return f"directory, mode {state['mode']:o}"
    return f"{state['digest']} ({size_text(state['size'])}, mode {state['mode']:o})"


def _side(value: Any) -> str:
    return "none" if value is None else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as a table for people, each in one line whatever its cells hold."""
    rows = [tuple(shown(cell) for cell in row) for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
