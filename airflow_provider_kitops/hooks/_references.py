"""References as DAGs write them, and the dictionary that every operator returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.oci import description, tagging
from airflow_provider_kitops.oci.descriptor import is_digest
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference

if TYPE_CHECKING:
    from airflow_provider_kitops.oci.reference import Reference
    from airflow_provider_kitops.oci.store import Store

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
            f"{argument} is {_shown(value)}, not a reference.",
            hint="Give repository:tag, repository@sha256:…, or the output of another task of this provider.",
        )
    if value.lstrip().startswith("{"):
        raise InvalidReference(
            f"{argument} is a dictionary that was rendered into text: {_shown(value)}.",
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
            f"{argument} is {_shown(value)}, which names no digest.",
            hint="Give sha256:…, repository@sha256:…, or the output of another task of this provider.",
        )
    return digest


def settings_of(value: Any, argument: str, *, required: bool = False) -> dict[str, Any]:
    """The settings that an argument holds; ``None`` is none, unless it is ``required``.

    :raises InvalidInput: it is no mapping, for example a template that was rendered into text.
    """
    if value is None and not required:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"{argument} is {type(value).__name__}, not a mapping.",
            hint="Give a mapping. If it is a template for the whole of it, the DAG needs "
            "render_template_as_native_obj=True.",
        )
    return dict(value)


def texts_of(value: Any, argument: str, *, single: bool = True) -> list[str]:
    """The texts that an argument holds.

    :param single: whether one text may stand for a list of one.
    :raises InvalidInput: it is no list of texts.
    """
    if single and isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InvalidInput(
            f"{argument} is {_shown(value)}, not a list of texts.",
            hint="Give a list. If it is a template for the whole of it, the DAG needs "
            "render_template_as_native_obj=True.",
        )
    return list(value)


def path_argument(value: Any, argument: str) -> Path:
    """The path that an argument holds.

    A template that finds nothing gives empty text or ``None``, which would be the current directory or one of that
    name.

    :raises InvalidInput: it is empty, ``None``, or neither text nor a path.
    """
    if not isinstance(value, str | Path) or str(value).strip() in ("", "None"):
        raise InvalidInput(f"{argument} is {_shown(value)}, not a path.", hint="Give the path of a directory or file.")
    return Path(value)


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


def describe(
    store: Store, reference: str | Reference, *, tags: Sequence[str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Read a manifest back and describe it as every operator does.

    :param store: where to look.
    :param reference: tag or digest.
    :param tags: tags to report; without them, the tag of ``reference`` if it has one.
    :param fields: the operator's own small fields.
    :return: ``reference`` (pinned to the digest), ``digest``, ``tags``, ``size`` (bytes of manifest, config and
        layers), ``media_type``, and ``fields``.
    :raises NotFound: there is no such manifest.
    """
    asked = store.reference(reference)
    pinned, descriptor = store.resolve(asked)
    if tags is None:
        tags = [asked.tag] if asked.tag and not asked.digest else []
    return description.describe(store.target(pinned), pinned, descriptor, tags, **fields)


def reached(digest: str, moved_from: str | None, moved_to: str | None) -> bool:
    """Whether a tag that names ``digest`` is where a sensor waits for it to be."""
    return digest != moved_from and moved_to in (None, digest)


def _shown(value: Any) -> str:
    return repr(value)[:200]
