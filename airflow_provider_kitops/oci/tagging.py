"""Which tags may move, and moving them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import Conflict, InvalidReference, NotFound
from airflow_provider_kitops.oci.reference import is_tag
from airflow_provider_kitops.oci.target import Tags, Target

#: Patterns of the tags that may move from one digest to another; every other tag names one digest for good.
DEFAULT_MUTABLE_TAGS: tuple[str, ...] = ("latest", "champion", "challenger", "staging")


def split_tags(tags: Tags) -> tuple[str, ...]:
    """``tags`` as a tuple, each once, in order; a text may hold several with commas.

    :raises InvalidReference: a malformed tag.
    """
    texts = tags.split(",") if isinstance(tags, str) else list(tags or ())
    for tag in texts:
        if not is_tag(tag):
            raise InvalidReference(
                f"Malformed tag {str(tag)[:100]!r}.", hint="A tag has 1 to 128 of A-Z a-z 0-9 _ . - and commas between."
            )
    return tuple(dict.fromkeys(texts))


def check_tags(target: Target, digest: str | None, tags: Tags, *, mutable: Sequence[str]) -> None:
    """Find a tag that must not move, before anything is uploaded for nothing.

    :param digest: what the tags are to name; None where that is not known yet (nothing is checked then).
    :raises Conflict: a tag that matches no ``mutable`` pattern names another digest; the message shows both.
    """
    if digest is None:
        return
    for tag in split_tags(tags):
        if any(fnmatchcase(tag, pattern) for pattern in mutable):
            continue
        try:
            present = target.resolve(tag).digest
        except NotFound:
            continue
        if present != digest:
            raise Conflict(
                f"The tag {tag} of {target.name} names {present} and must not be moved to {digest}.",
                hint=f"Use another tag, or make it mutable (mutable tags are: {', '.join(mutable) or 'none'}).",
            )


def apply_tags(target: Target, descriptor: Descriptor, tags: Tags, *, mutable: Sequence[str]) -> None:
    """Make every one of ``tags`` name ``descriptor``; all are checked before the first one moves.

    :param mutable: patterns (as in ``fnmatch``) of the tags that may leave another digest.
    :raises Conflict: a tag must not move.
    :raises NotFound: the manifest is not there.
    """
    check_tags(target, descriptor.digest, tags, mutable=mutable)
    for tag in split_tags(tags):
        target.tag(descriptor, tag)
