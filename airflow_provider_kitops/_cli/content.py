"""Making and moving ModelKits: pack, unpack, push, pull, copy."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from airflow_provider_kitops._cli.options import (
    Verbs,
    add_label,
    add_sides,
    add_verb,
    content_of,
    pairs,
    path,
    unreadable,
)
from airflow_provider_kitops._cli.session import DEFAULT_TAG, Session, spoken
from airflow_provider_kitops.modelkit.forms import Compression, LayerFormat, ManifestFormat
from airflow_provider_kitops.oci.description import describe
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.progress import size_text
from airflow_provider_kitops.oci.reference import UNNAMED, Reference
from airflow_provider_kitops.oci.tagging import split_reference

if TYPE_CHECKING:
    from airflow_provider_kitops.modelkit.kitfile import Kitfile
    from airflow_provider_kitops.modelkit.modelkit import ModelKit
    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.oci.target import Target


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    pack = add_verb(verbs, "pack", _pack, "make a ModelKit of a context directory")
    pack.add_argument("context", type=path, metavar="DIR", help="context directory")
    pack.add_argument("-f", "--file", metavar="FILE", help="Kitfile (default: the one in DIR; - = standard input)")
    pack.add_argument(
        "-t",
        "--tag",
        metavar="REF",
        help="where to: [registry/]repository[:tag[,tag...]] (default: the local layout, without a name)",
    )
    pack.add_argument("--dry-run", action="store_true", help="read and hash everything, and store nothing")
    pack.add_argument(
        "--annotation", action="append", default=[], metavar="KEY=VALUE", help="annotation of the manifest"
    )
    pack.add_argument(
        "--compression", choices=get_args(Compression), default="none", help="of the layers (default: none)"
    )
    pack.add_argument(
        "--layer-format",
        choices=get_args(LayerFormat),
        default="tar",
        help="raw = each layer is one file as it is (default: tar)",
    )
    form = pack.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=get_args(ManifestFormat),
        default="modelkit",
        help="form of the manifest (default: modelkit, as kit writes it today)",
    )
    form.add_argument(
        "--use-model-pack",
        dest="format",
        action="store_const",
        const="modelpack",
        help="the same as --format modelpack",
    )
    pack.add_argument(
        "--skip-two-dots", action="store_true", help="leave out files with '..' in their names, as kit does"
    )

    unpack = add_verb(verbs, "unpack", _unpack, "write the content of a ModelKit into a directory")
    unpack.add_argument("reference", metavar="REF")
    unpack.add_argument("-d", "--dir", type=path, default=Path(), metavar="DIR", help="directory (default: this one)")
    unpack.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="FILTER",
        help="only this: kind[,kind...][:name-or-path[,...]]; may be given again",
    )
    unpack.add_argument(
        "--include-remote", action="store_true", help="also the datasets in other ModelKits and in S3 (remotePath)"
    )
    add_label(unpack)
    existing = unpack.add_mutually_exclusive_group()
    existing.add_argument("-o", "--overwrite", action="store_true", help="replace files that exist")
    existing.add_argument("-i", "--ignore-existing", action="store_true", help="leave files that exist")
    unpack.add_argument(
        "--allow-case-collisions",
        action="store_true",
        help="also names that are one and the same on disks of macOS and Windows, such as a and A",
    )

    push = add_verb(verbs, "push", _push, "copy a ModelKit from the local layout to a registry")
    push.add_argument(
        "source", metavar="REF", help="in the local layout; or, given alone, where to: it has its first tag here"
    )
    push.add_argument("destination", nargs="?", metavar="DESTINATION", help="registry/repository[:tag[,tag...]]")

    pull = add_verb(verbs, "pull", _pull, "copy a ModelKit from a registry to the local layout")
    pull.add_argument("source", metavar="REF", help="registry/repository[:tag][@digest]")
    pull.add_argument(
        "destination", nargs="?", metavar="DESTINATION", help="repository[:tag[,tag...]] (default: the source's)"
    )

    copy = add_verb(verbs, "copy", _copy, "copy a ModelKit between any two repositories, not changing a byte")
    copy.add_argument("source", metavar="REF")
    copy.add_argument(
        "destination", metavar="DESTINATION", help="[registry/]repository[:tag[,tag...]] (default: the source's tag)"
    )
    add_sides(copy)
    for verb in (push, pull, copy):
        verb.add_argument("--referrers", action="store_true", help="copy what is attached to it, too")


def _pack(session: Session, options: argparse.Namespace) -> int:
    try:
        with os.scandir(options.context):
            pass
    except OSError as error:
        raise unreadable(options.context, error) from error
    kitfile = _kitfile(options.context, options.file)
    tags: tuple[str, ...] = ()
    if options.tag is None:
        store, reference = session.store(""), Reference("", UNNAMED)
        target = store.target(reference)
    else:
        store, reference, target, tags = session.destination(options.tag, default=(DEFAULT_TAG,))
    made = _packed(session, options, kitfile, store, None if options.dry_run else target, tags)
    if options.dry_run:
        session.answer({"digest": made.descriptor.digest, "size": made.size}, made.descriptor.digest)
        return 0
    answer = describe(target, reference, made.descriptor, tags)
    named = "; ".join([*([", ".join(tags)] if tags else []), size_text(answer["size"])])
    session.answer(answer, f"packed {spoken(answer)} ({named})")
    return 0


def _packed(
    session: Session,
    options: argparse.Namespace,
    kitfile: Kitfile | None,
    store: Store,
    target: Target | None,
    tags: tuple[str, ...],
) -> ModelKit:
    from airflow_provider_kitops.modelkit.pack import pack
    from airflow_provider_kitops.modelkit.parents import parents_of

    with session.progress() as hook:
        return pack(
            options.context,
            kitfile,
            target,
            tags,
            mutable_tags=session.mutable_tags,
            annotations=pairs("--annotation", options.annotation),
            compression=options.compression,
            layer_format=options.layer_format,
            manifest_format=options.format,
            skip_two_dots=options.skip_two_dots,
            concurrency=options.concurrency,
            on_progress=hook,
            parents=parents_of(store),
        )


def _kitfile(context: Path, name: str | None) -> Kitfile | None:
    """The Kitfile that ``--file`` names: standard input, a file, or else one below the context."""
    from airflow_provider_kitops.modelkit.kitfile import parse_kitfile

    if not name:
        return None
    if name == "-":
        return parse_kitfile(sys.stdin.buffer.read(), name="standard input")
    file = Path(name)
    if not os.path.lexists(file) and os.path.lexists(context / file):
        file = context / file
    return parse_kitfile(content_of(file), name=str(file))


def _unpack(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.filters import Filters
    from airflow_provider_kitops.modelkit.parents import parents_of
    from airflow_provider_kitops.modelkit.unpack import unpack

    store, reference, target, descriptor = session.resolve(options.reference)
    with session.progress() as hook:
        kit = unpack(
            target,
            descriptor.digest,
            options.dir,
            options.filter,
            overwrite=options.overwrite,
            ignore_existing=options.ignore_existing,
            allow_case_collisions=options.allow_case_collisions,
            include_remote=options.include_remote,
            labels=pairs("--label", options.label),
            parents=parents_of(store),
            concurrency=options.concurrency,
            on_progress=hook,
        )
    some = Filters.parse(options.filter).selects(kit, include_remote=options.include_remote)
    answer = describe(target, reference, kit.descriptor, directory=str(options.dir), unpacked=some)
    said = f"unpacked {spoken(answer)} into {options.dir}"
    session.answer(answer, said if some else f"nothing unpacked: nothing in {spoken(answer)} passes the filters")
    return 0


def _push(session: Session, options: argparse.Namespace) -> int:
    source, destination = options.source, options.destination
    if destination is None:
        # The same name on both sides: the registry's reference without its registry is the local one. Of several
        # tags the first is the one that it has here.
        destination = source
        name, tags = split_reference(source)
        source = ":".join((_without_registry(name), *tags[:1]))
    elif Reference.parse(source).registry:
        raise InvalidReference(f"{source!r} is in a registry; push takes from the local layout.", hint="Use copy.")
    if not _is_in_registry(destination):
        raise InvalidReference(
            f"Cannot push to {destination!r}: no registry is named.",
            hint="Write registry/repository:tag, or use copy.",
        )
    return _transfer(session, options, source, destination, "pushed")


def _pull(session: Session, options: argparse.Namespace) -> int:
    if not Reference.parse(options.source).registry:
        raise InvalidReference(f"Cannot pull {options.source!r}: no registry is named.", hint="Use copy.")
    destination = options.destination or _without_registry(options.source).partition("@")[0]
    if _is_in_registry(destination):
        raise InvalidReference(f"{destination!r} is in a registry; pull gives to the local layout.", hint="Use copy.")
    return _transfer(session, options, options.source, destination, "pulled", "received")


def _copy(session: Session, options: argparse.Namespace) -> int:
    return _transfer(session, options, options.source, options.destination, "copied")


def _transfer(
    session: Session, options: argparse.Namespace, source: str, destination: str, done: str, moved: str = "sent"
) -> int:
    from airflow_provider_kitops.oci.copy import copy

    # Both stores are opened, and what was typed is checked, before anything is sent anywhere.
    _, taken, origin = session.target(source, "from")
    _, given, target, tags = session.destination(destination, "to", default=(taken.tag,) if taken.tag else ())
    with session.progress() as hook:
        result = copy(
            origin,
            taken.selector,
            target,
            tags,
            referrers=options.referrers,
            concurrency=options.concurrency,
            mutable_tags=session.mutable_tags,
            on_progress=hook,
        )
    answer = describe(
        target, given, result.descriptor, tags, copied=result.copied, skipped=result.skipped, mounted=result.mounted
    )
    named = ", ".join(tags) or "without a tag"
    session.answer(answer, f"{done} {spoken(answer)} ({named}; {size_text(result.copied)} {moved})")
    return 0


def _is_in_registry(destination: str) -> bool:
    return bool(Reference.parse(split_reference(destination)[0]).registry)


def _without_registry(text: str) -> str:
    reference = Reference.parse(text)
    return text.removeprefix(f"{reference.registry}/") if reference.registry else text
