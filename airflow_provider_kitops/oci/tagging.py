"""Tags as people write them, which of them may move, and setting several at once."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidReference, NotFound
from airflow_provider_kitops.oci.reference import UNNAMED, check_tag, shown
from airflow_provider_kitops.oci.target import Tags, Target

#: Patterns (``fnmatch``) of the tags that may move from one digest to another.
DEFAULT_MUTABLE_TAGS: tuple[str, ...] = ("latest", "champion", "challenger", "staging")


def split_reference(text: str) -> tuple[str, tuple[str, ...]]:
    """``[registry/]repository[:tag[,tag…]]``, which says where to write, as the repository and its tags, each once.

    The repository is left as it is written; ``Reference.parse`` checks it.

    :raises InvalidReference: a tag is malformed, or a digest is named, which is found by writing.
    """
    if "@" in text:
        raise InvalidReference(
            f"{shown(text)!r} names a digest, but this is where something new is written.",
            hint="Give repository:tag[,tag…].",
        )
    if text == UNNAMED:
        raise InvalidReference(
            f"{UNNAMED} holds what was packed without a name; nothing else is written there.",
            hint="Give repository:tag[,tag…].",
        )
    start = text.rfind("/") + 1
    name, colon, tags = text[start:].partition(":")
    return text[:start] + name, split_tags(tags) if colon else ()


def split_tags(tags: Tags) -> tuple[str, ...]:
    """Tags as a tuple: ``"a,b"``, a sequence of tags, or None for no tag; each once, in the order given.

    Blanks around them do not count.

    :raises InvalidReference: one of them is malformed.
    """
    given = tags.split(",") if isinstance(tags, str) else list(tags or ())
    listed = [tag.strip() if isinstance(tag, str) else tag for tag in given]
    for tag in listed:
        check_tag(tag)
    return tuple(dict.fromkeys(listed))


def is_mutable(tag: str, mutable: Sequence[str]) -> bool:
    """Whether ``tag`` matches one of the patterns of tags that may move."""
    return any(fnmatchcase(tag, pattern) for pattern in mutable)


def tags_to_set(target: Target, descriptor: Descriptor, tags: Tags, *, mutable: Sequence[str]) -> tuple[str, ...]:
    """Those of ``tags`` that do not name the manifest yet. Changes nothing.

    :param mutable: patterns of the tags that may move.
    :raises Conflict: a tag that may not move names another manifest.
    :raises InvalidReference: a tag is malformed.
    """
    missing = []
    for tag in split_tags(tags):
        try:
            current = target.resolve(tag)
        except NotFound:
            missing.append(tag)
            continue
        if current.digest == descriptor.digest:
            continue
        if not is_mutable(tag, mutable):
            raise Conflict(
                f"Tag {tag} of {target.name} names {current.digest} and may not be moved to {descriptor.digest}.",
                hint=f"Choose another tag. Only tags like {', '.join(mutable) or '(none)'} may move: --mutable-tags, "
                "or mutable_tags of the connection, says which.",
            )
        missing.append(tag)
    return tuple(missing)


def apply_tags(target: Target, descriptor: Descriptor, tags: Tags, *, mutable: Sequence[str]) -> None:
    """Make each of ``tags`` name a manifest that ``target`` holds. All are checked before any is set.

    A tag that already names the manifest is left alone.

    :param mutable: patterns (``fnmatch``) of the tags that may move from another manifest to this one.
    :raises Conflict: a tag that may not move names another manifest; the message shows both digests.
    :raises InvalidReference: a tag is malformed.
    :raises NotFound: the manifest is not in ``target``.
    """
    for tag in tags_to_set(target, descriptor, tags, mutable=mutable):
        target.tag(descriptor, tag)
