"""``[registry/]repository[:tag][@digest]`` (OCI distribution specification 1.1, "Pulling manifests")."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from airflow_provider_kitops.oci.descriptor import is_digest
from airflow_provider_kitops.oci.errors import InvalidReference

_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])"
    r"(?::[0-9]{1,5})?"
)


# Part of a digest, as other tools show it. A repository of that name would have such tags.
_CUT = re.compile(r"sha(?:256|512):[0-9A-Fa-f]+")
_DIGEST = "A digest is sha256: and 64 hex digits."


def is_tag(text: str) -> bool:
    """Whether ``text`` is a well-formed tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(text: str, where: str = "") -> None:
    """Refuse what is no well-formed tag.

    :param where: the whole text that it stands in, for the message.
    :raises InvalidReference: it is malformed.
    """
    if not isinstance(text, str) or not is_tag(text):
        raise InvalidReference(
            f"Malformed tag {str(text)[:150]!r}" + (f" in {where!r}." if where else "."),
            hint="A tag has 1 to 128 of A-Z a-z 0-9 _ . -",
        )


def shown(text: str) -> str:
    """A reference or registry as messages may quote it: without what may be a user and a password."""
    before, at, after = text.rpartition("@")
    if not at:
        return text
    return f"{shown(before)}@{after}" if is_digest(after) else f"…@{after}"


#: The repository of the local layout for what was packed without a name; it is named by its digest alone.
UNNAMED = "_"


@dataclass(frozen=True)
class Reference:
    """Where a manifest is: a repository of a registry (none: the local layout) and a tag, a digest, or both.

    :param registry: ``host[:port]``, or empty.
    :param repository: slash-separated lower-case name.
    :param tag: tag, or empty.
    :param digest: digest, or empty. It wins over the tag when both are given.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``text``; the first segment is a registry only if it holds a ``.`` or ``:`` or is ``localhost``.

        A digest alone, or ``_`` and a digest, is what was packed into the local layout without a name.

        :raises InvalidReference: ``text`` does not follow the grammar.
        """
        if not isinstance(text, str) or not text or len(text) > 1024:
            raise InvalidReference(f"Not a reference: {shown(str(text))[:100]!r}.", hint=_FORM)
        if is_digest(text):
            return cls("", UNNAMED, digest=text)
        if _CUT.fullmatch(text):
            raise InvalidReference(f"Malformed digest {text!r}.", hint=_DIGEST)
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise InvalidReference(
                f"Malformed digest in {shown(text)!r}.",
                hint=f"{_DIGEST} Credentials do not belong before the @.",
            )
        if "://" in rest:
            raise InvalidReference(
                "A registry is written without scheme.",
                hint="Write host[:port]/repository. For one without TLS there is --plain-http, or plain_http of the "
                "connection.",
            )
        first, slash, remainder = rest.partition("/")
        registry = ""
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, rest = first, remainder
            if not _REGISTRY.fullmatch(registry):
                raise InvalidReference(f"Malformed registry {registry!r} in {text!r}.", hint=_FORM)
        if rest == UNNAMED and not registry:
            return cls("", UNNAMED, digest=digest)
        repository, colon, tag = rest.partition(":")
        if colon:
            check_tag(tag, text)
        if len(repository) > 255 or not _REPOSITORY.fullmatch(repository):
            raise InvalidReference(f"Malformed repository {repository!r} in {text!r}.", hint=_FORM)
        return cls(registry, repository, tag, digest)

    @property
    def selector(self) -> str:
        """What names the manifest inside the repository: the digest if there is one, else the tag, else empty."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """``registry/repository``, or the repository alone in the local layout."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    def at(self, digest: str) -> Reference:
        """The same repository, pinned to ``digest``."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


_FORM = "Write [registry/]repository[:tag][@sha256:…], the repository in lower case."
