"""References as DAGs write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_kitops.hooks._arguments import brief, texts_of
from airflow_provider_kitops.oci import tagging
from airflow_provider_kitops.oci.descriptor import is_digest
from airflow_provider_kitops.oci.errors import InvalidReference

#: A reference as text, or the dictionary that an operator returned.
ReferenceLike = str | Mapping[str, Any]


def reference_text(value: Any, argument: str) -> str:
    """The reference that ``value`` stands for.

    :param value: text, or the dictionary that an operator of this package returned.
    :param argument: name of the operator's argument, for the message.
    :raises InvalidReference: it is neither.
    """
    if isinstance(value, Mapping):
        value = value.get("reference")
    if not isinstance(value, str) or not value:
        raise InvalidReference(
            f"{argument} is {brief(value)}, not a reference.",
            hint="Give repository:tag, repository@sha256:…, or the output of another task of this provider.",
        )
    if value.lstrip().startswith("{"):
        raise InvalidReference(
            f"{argument} is a dictionary that was rendered into text: {brief(value)}.",
            hint="Pass task.output itself, or write {{ ti.xcom_pull('task')['reference'] }}.",
        )
    return value


def digest_text(value: Any, argument: str) -> str | None:
    """The digest that ``value`` names, or ``None`` for ``None`` and empty text.

    :param value: a digest, a reference that holds one, or the dictionary that an operator returned.
    :param argument: name of the operator's argument, for the message.
    :raises InvalidReference: it names no digest.
    """
    if value is None or value == "" or value == "None":
        return None
    text = value.get("digest") if isinstance(value, Mapping) else value
    digest = text.rpartition("@")[2] if isinstance(text, str) else ""
    if not is_digest(digest):
        raise InvalidReference(
            f"{argument} is {brief(value)}, which names no digest.",
            hint="Give sha256:…, repository@sha256:…, or the output of another task of this provider.",
        )
    return digest


def split_reference(
    text: str, more: str | Sequence[str] | None = None, argument: str = "reference"
) -> tuple[str, list[str]]:
    """Split ``repository:tag[,tag…]`` into the repository and all tags to give, ``more`` included.

    An empty text in ``more``, as a template makes it, is no tag.

    :param argument: name of the argument that holds ``text``, for the message.
    :raises InvalidReference: ``text`` names a digest, which is found by packing and cannot be chosen; or a tag is
        malformed, or ``None``, which is what a template makes of nothing.
    """
    name, tags = tagging.split_reference(text)
    parts = [] if more is None else texts_of(more, "tags")
    further = [tag for part in parts if part for tag in tagging.split_tags(part)]
    for source, found in ((argument, tags), ("tags", further)):
        if "None" in found:
            raise InvalidReference(
                f"{source} names the tag 'None', which is what a template makes of nothing.",
                hint="Give a tag, or leave it out.",
            )
    return name, list(dict.fromkeys((*tags, *further)))
