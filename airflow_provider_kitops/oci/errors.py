"""Everything that can go wrong, as a small hierarchy.

A message says what was tried and on what; ``hint`` says what to do next. Nothing secret may be put in either.
``transient`` tells a caller whether the same call may succeed later, ``exit_code`` is what the command
``modelkit`` ends with.
"""

from __future__ import annotations


class KitopsError(Exception):
    """Base of all errors that this package raises on purpose.

    :param message: what was tried, on what, and what happened.
    :param hint: what a person can do about it.
    """

    transient: bool = False
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        # Alone: exceptions are unpickled, in another process, by giving these again, and then their attributes.
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidInput(KitopsError):
    """An argument, option, file or setting that cannot be used."""

    exit_code = 2


class InvalidReference(InvalidInput):
    """Not a reference by the grammar of the OCI distribution specification, or not one of this store."""


class InvalidKitfile(InvalidInput):
    """A Kitfile that breaks one or more rules; the message lists all of them."""


class UnsafePath(KitopsError):
    """A path that would leave the directory it belongs to, or go through a link."""

    exit_code = 6


class LimitExceeded(KitopsError):
    """Content larger, deeper or more numerous than the caller allowed."""

    exit_code = 6


class NotFound(KitopsError):
    """The registry, layout or repository holds no such tag, manifest or blob."""

    exit_code = 3


class Unauthorized(KitopsError):
    """The registry wants credentials, or refuses those it got (HTTP 401)."""

    exit_code = 4


class Forbidden(KitopsError):
    """The credentials are known but may not do this (HTTP 403)."""

    exit_code = 4


class Conflict(KitopsError):
    """Someone else changed what was about to be changed, or the tag must not move."""

    exit_code = 5


class ContentVanished(Conflict):
    """Someone else deleted content between its push and that of the manifest that names it: the same again helps."""

    transient = True


class VerificationFailed(KitopsError):
    """Content, evidence or a decision is not what it claims to be."""

    exit_code = 6


class DigestMismatch(VerificationFailed):
    """The bytes do not have the digest or size that their descriptor names."""


class RegistryUnavailable(KitopsError):
    """No usable answer from the registry: connection, TLS or server failure (HTTP 5xx).

    :param retry_after: seconds that the registry asked to wait, if it did.
    """

    transient = True
    exit_code = 7

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RateLimited(RegistryUnavailable):
    """The registry asks to slow down (HTTP 429)."""


class Interrupted(KitopsError):
    """The caller wants it no longer: told to threads that were in the middle of it."""

    exit_code = 130


class StorageError(KitopsError):
    """The local disk refuses: full, read-only or not permitted. Nothing half-written is left."""


class WorkloadFailed(KitopsError):
    """A user's program ended with a non-zero exit code or left no usable output."""


class ClusterUnavailable(KitopsError):
    """No usable answer from the Kubernetes API."""

    transient = True
    exit_code = 7


class JudgeUnavailable(KitopsError):
    """The judge's endpoint gives no usable answer."""

    transient = True
    exit_code = 7


class JudgeUnqualified(KitopsError):
    """The judge failed its qualification: it may not decide anything."""

    exit_code = 6
