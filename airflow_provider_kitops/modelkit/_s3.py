"""Datasets that lie in S3 (``remotePath: s3://bucket/key``): one stream, taken up again where it broke, checked.

Credentials, region and endpoint come from where boto3 looks for them. What a ModelKit says decides which object is
asked for; the bytes count for nothing unless they have the digest that the Kitfile names.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import Any, NoReturn

import urllib3

from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit._untar import safe_name
from airflow_provider_kitops.modelkit.kitfile import Dataset
from airflow_provider_kitops.oci._retry import Retry, RetryPolicy
from airflow_provider_kitops.oci._wire import Wire
from airflow_provider_kitops.oci.content import CHUNK
from airflow_provider_kitops.oci.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    Interrupted,
    InvalidInput,
    KitopsError,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    Unauthorized,
)

SCHEME = "s3://"

# Names of buckets, old ones included. No ARN: one can lead to another region and account than the settings say.
_ADDRESS = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})/(.+)", re.DOTALL)
_HASH = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_CREDENTIALS = frozenset(
    ["AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"]
)
_BUSY = frozenset(["SlowDown", "Throttling", "RequestLimitExceeded"])
_CHECK_CREDENTIALS = "Check the credentials where boto3 looks for them: AWS_ACCESS_KEY_ID, AWS_PROFILE, a role."
_TIMEOUT = 60  # seconds
# What botocore logs for its developers holds session tokens and signatures.
_TELLTALES = ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers", "botocore.retries.standard")
_POLICY = RetryPolicy()


def _no_details(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


@dataclass(frozen=True)
class Wanted:
    """What an entry of ``datasets`` says of an object.

    :param label: of the dataset, for messages.
    :param address: as the Kitfile writes it.
    :param sha256: what the object must be, in hexadecimal.
    :param path: clean path of the file that it becomes.
    """

    label: str
    address: str
    bucket: str
    key: str
    sha256: str
    path: str

    @classmethod
    def of(cls, dataset: Dataset) -> Wanted:
        """Read an entry whose ``remotePath`` begins with ``s3://``; nothing is asked of anybody.

        The object becomes the file at ``path``; in a ``path`` that is a directory (``.``, or with a ``/`` at its end)
        it keeps its name.

        :raises InvalidInput: ``remotePath`` names no single object, or ``remoteHash`` is no SHA-256.
        :raises UnsafePath, LimitExceeded: ``path`` is one that no ModelKit may have.
        """
        label = f"The dataset {dataset.name or dataset.path}"
        found, digest = _ADDRESS.fullmatch(dataset.remote_path), _HASH.fullmatch(dataset.remote_hash)
        if digest is None:
            raise InvalidInput(
                f"{label} has the remoteHash {dataset.remote_hash[:100]!r}, which is no SHA-256.",
                hint="Write sha256: and 64 hexadecimal digits.",
            )
        name = posixpath.basename(found[2]) if found else ""
        if found is None or name in ("", ".", ".."):
            raise InvalidInput(
                f"{label} has the remotePath {dataset.remote_path!r}, which names no object.",
                hint="Write s3://bucket/key: one hash stands for one object, not for all below a prefix.",
            )
        inside = clean(dataset.path) == "." or dataset.path.endswith("/")
        try:
            raw = clean(posixpath.join(dataset.path, name) if inside else dataset.path).encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{label} has a path that is not UTF-8.") from error
        return cls(label, dataset.remote_path, found[1], found[2], digest[1].lower(), safe_name(raw, label))


@dataclass(frozen=True)
class Found:
    """An object that is there.

    :param size: bytes.
    :param etag: of these bytes and no later ones.
    """

    wanted: Wanted
    size: int
    etag: str


class S3:
    """Where the objects are; reached when the first one is asked for. What is read in other threads can be ended."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._retry = Retry(_POLICY, self._wire.is_cut)

    def interrupt(self) -> None:
        """End everything under way in other threads, at once; ``Interrupted`` is raised there, until ``resume``."""
        self._wire.cut()

    def resume(self) -> None:
        """Be of use again."""
        self._wire.mend()

    def find(self, wanted: Wanted) -> Found:
        """Ask for the size of an object.

        :raises NotFound: it is not there.
        :raises Unauthorized: there are no credentials, or they are refused.
        :raises Forbidden: these credentials may not read it.
        :raises RegistryUnavailable: there is no usable answer.
        :raises InvalidInput: boto3 is not installed, or its settings cannot be used.
        """
        return self._retry.call(lambda: self._find(wanted))

    def read(self, found: Found) -> Iterator[bytes]:
        """The content; a consumer that comes to the end has had the right one.

        :raises DigestMismatch: it is not what ``remoteHash`` says.
        :raises Conflict: the object was replaced meanwhile.
        :raises RegistryUnavailable: the connection broke and could not be taken up again.
        :raises Interrupted: by ``interrupt``.
        """
        hashing, stream, wanted = hashlib.sha256(), _Stream(self, found), found.wanted
        try:
            while data := self._retry.call(stream.read):
                hashing.update(data)
                yield data
        finally:
            stream.close()
        if hashing.hexdigest() != wanted.sha256:
            raise DigestMismatch(
                f"{wanted.label} at {wanted.address} has the digest sha256:{hashing.hexdigest()}, and its "
                f"remoteHash is sha256:{wanted.sha256}.",
                hint="Nothing of it was kept. The object was replaced, or the Kitfile is wrong.",
            )

    @cached_property
    def client(self) -> Any:
        """boto3's, on connections that ``interrupt`` can cut."""
        try:
            from boto3.session import Session
            from botocore.config import Config
        except ImportError as error:
            raise InvalidInput(
                "Datasets in S3 need boto3, which is not installed here.",
                hint="Install it: pip install airflow-provider-kitops[s3]",
            ) from error
        # Tried again in one place only, and checked by a digest that is worth more than S3's own.
        config = Config(
            retries={"total_max_attempts": 1},
            response_checksum_validation="when_required",
            connect_timeout=_TIMEOUT,
            read_timeout=_TIMEOUT,
        )
        for name in _TELLTALES:
            logging.getLogger(name).addFilter(_no_details)
        with self.errors("reach S3"):
            client = Session().client("s3", config=config)
        # botocore gives no public way to its connections. Where they are kept elsewhere, a wait ends by its timeout.
        with suppress(AttributeError):
            pools = client._endpoint.http_session._pool_classes_by_scheme
            for scheme, pool in list(pools.items()):
                pools[scheme] = self._wire.pool(pool)
        return client

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Raise errors of this package for those of boto3 in the block, which is not begun after an interrupt."""
        interrupted = Interrupted(f"Could not {doing}: it was interrupted.")
        if self._wire.is_cut.is_set():
            raise interrupted
        try:
            yield
        except Exception as error:  # noqa: BLE001 - of many kinds, without a base
            if self._wire.is_cut.is_set():
                raise interrupted from None
            _refuse(error, doing)

    def _find(self, wanted: Wanted) -> Found:
        client = self.client
        with self.errors(f"look for {wanted.address}"):
            answer = client.head_object(Bucket=wanted.bucket, Key=wanted.key)
        size = answer.get("ContentLength")
        if size is None or size < 0:
            raise RegistryUnavailable(f"Could not look for {wanted.address}: S3 does not say how large it is.")
        return Found(wanted, size, answer.get("ETag", ""))


class _Stream:
    """The bytes of an object over as many connections as it takes."""

    def __init__(self, s3: S3, found: Found) -> None:
        self._s3 = s3
        self._found = found
        self._doing = f"download {found.wanted.address}"
        self._offset = 0
        self._body: Any = None

    def read(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        left = self._found.size - self._offset
        if not left:
            return b""
        try:
            with self._s3.errors(self._doing):
                if self._body is None:
                    self._body = self._open()
                data: bytes = self._body.read(min(CHUNK, left))
        except KitopsError:
            self.close()
            raise
        if not data:
            self.close()
            raise RegistryUnavailable(f"Could not {self._doing}: it ended after {self._offset} bytes.")
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Give up the connection."""
        if self._body is not None:
            with suppress(OSError, HTTPException, urllib3.exceptions.HTTPError):
                self._body.close()
            self._body = None

    def _open(self) -> Any:
        wanted = self._found.wanted
        only = {"IfMatch": self._found.etag} if self._found.etag else {}
        if self._offset:
            only["Range"] = f"bytes={self._offset}-"
        answer = self._s3.client.get_object(Bucket=wanted.bucket, Key=wanted.key, **only)
        if self._offset and not answer.get("ContentRange", "").startswith(f"bytes {self._offset}-"):
            answer["Body"].close()
            raise RegistryUnavailable(f"Could not {self._doing}: S3 sent another range than asked for.")
        return answer["Body"]


def _refuse(error: Exception, doing: str) -> NoReturn:
    """Raise the error of this package for one of boto3's.

    Of those only the kind and S3's code are shown, and no cause is kept: their texts may hold an address with a
    password in it, the output of a credential process, or what was signed.
    """
    if isinstance(error, KitopsError):
        raise error
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    kind = type(error).__name__
    if isinstance(error, boto.ClientError):
        raise _answered(error.response, doing) from None
    if isinstance(error, boto.SSLError):
        found: KitopsError = RegistryUnavailable(
            f"Could not {doing}: TLS failed.", hint="Check the endpoint, and the certificates in AWS_CA_BUNDLE."
        )
        found.transient = False
    elif isinstance(
        error,
        boto.ConnectionError
        | boto.HTTPClientError
        | boto.IncompleteReadError
        | ResponseParserError
        | urllib3.exceptions.HTTPError
        | HTTPException
        | OSError,
    ):
        found = RegistryUnavailable(
            f"Could not {doing}: there is no usable answer ({kind}).",
            hint="See whether the endpoint can be reached from here.",
        )
    elif isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.TokenRetrievalError
        | boto.SSOError,
    ):
        found = Unauthorized(f"Could not {doing}: there are no usable credentials ({kind}).", hint=_CHECK_CREDENTIALS)
    elif isinstance(error, boto.BotoCoreError | ValueError):
        found = InvalidInput(
            f"Could not {doing}: boto3's settings or the address cannot be used ({kind}).",
            hint="Check AWS_PROFILE, AWS_ENDPOINT_URL, AWS_REGION and the files that they name.",
        )
    else:
        raise error
    raise found from None


def _answered(response: Any, doing: str) -> KitopsError:
    """The error for what S3 answered."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(response.get("Error", {}).get("Code", ""))
    said = f"S3 answered {status}" + (f" ({code})" if _CODE.fullmatch(code) and code != str(status) else "")
    message = f"Could not {doing}: {said}."
    if status == 401 or code in _CREDENTIALS:
        return Unauthorized(message, hint=_CHECK_CREDENTIALS)
    if status == 403:
        return Forbidden(
            message, hint="The credentials may not read it, or it is not there and they may not list the bucket."
        )
    if status == 404:
        return NotFound(message, hint="Check bucket, key and endpoint.")
    if status == 412:
        return Conflict(message, hint="The object was replaced while it was read. Unpack again.")
    if status == 429 or code in _BUSY:
        return RateLimited(message, hint="Try again later.")
    found = RegistryUnavailable(message, hint="Check the endpoint, the region and the credentials.")
    found.transient = status >= 500 or status == 408
    return found
