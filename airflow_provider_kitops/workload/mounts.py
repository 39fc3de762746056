"""What a workload's pod is told: the files that its containers find, made by the caller and read in the pod.

Below ``/kitops/job``, from a ConfigMap: the specification, how to reach the registry, certificates to trust. Below
``/kitops/secret``, from a Secret: credentials and keys, each only where there is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.oci.credentials import Credentials, docker_config
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.store import DEFAULT_MUTABLE_TAGS, StoreConfig
from airflow_provider_kitops.workload.spec import WorkloadSpec

#: The containers of the pod, in the order in which they run. The program is the second.
CONTAINERS = FETCH, WORK, PUBLISH = "fetch", "work", "publish"
#: Where the containers find the ConfigMap and the Secret.
JOB_MOUNT, SECRET_MOUNT = "/kitops/job", "/kitops/secret"
#: Where ``fetch`` finds the volume that keeps blobs, if there is one.
CACHE_MOUNT = "/cache"
#: Keys of the ConfigMap.
SPEC_FILE, STORE_FILE, CA_FILE = "spec.json", "store.json", "ca.crt"
#: Keys of the Secret. The first makes it one of the type ``kubernetes.io/dockerconfigjson``, for pulling images, too.
DOCKER_CONFIG, PROXY = ".dockerconfigjson", "proxy"
CLIENT_CERT, CLIENT_KEY = "client.crt", "client.key"
#: The key that signs the provenance: for the container ``publish`` alone.
SIGNING_KEY = "signing.pem"

#: Bytes that Kubernetes takes in one ConfigMap, and in one Secret.
_MOST = 1024 * 1024


class _StoreFile(BaseModel):
    """``store.json``: what of a ``StoreConfig`` is neither secret nor a place on the caller's disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    registry: str
    namespace: str = ""
    plain_http: bool = False
    concurrency: int = 5
    mutable_tags: list[str] = list(DEFAULT_MUTABLE_TAGS)
    token_hosts: list[str] = []


def job_files(
    spec: WorkloadSpec,
    config: StoreConfig,
    credentials: Credentials | None = None,
    *,
    signing_key: bytes = b"",
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The data of the ConfigMap and of the Secret that a workload's pod mounts.

    :param config: the registry that inputs come from and the output goes to. Files that it names are read here.
    :param credentials: for it; by default those of ``config``, and without any there, what Docker's config file or a
        credential helper of this machine knows.
    :param signing_key: private key (PEM) that signs the provenance.
    :return: texts and bytes by file name: those of the job directory, and those of the secret directory. What is not
        set has no file.
    :raises InvalidInput: the store is a local layout, which no pod can reach; a file cannot be read or is of the wrong
        kind; or all together is larger than Kubernetes takes.
    """
    if not config.registry:
        raise InvalidInput(
            "A pod cannot reach the local layout, which is on this machine's disk.",
            hint="Give the connection a registry, or run the workload on this machine.",
        )
    store = _StoreFile(
        registry=config.registry,
        namespace=config.namespace,
        plain_http=config.plain_http,
        concurrency=config.concurrency,
        mutable_tags=list(config.mutable_tags),
        token_hosts=list(config.token_hosts),
    )
    # As a text that is the same whenever the values are: the same job makes the same objects.
    job = {
        SPEC_FILE: json.dumps(spec.model_dump(mode="json"), sort_keys=True),
        STORE_FILE: json.dumps(store.model_dump(mode="json"), sort_keys=True),
    }
    if config.ca_bundle:
        job[CA_FILE] = _certificates(config.ca_bundle)
    secret: dict[str, bytes] = {}
    found = config.credentials() if credentials is None else credentials
    if found:
        secret[DOCKER_CONFIG] = json.dumps(docker_config(config.registry, found)).encode()
    if config.proxy:
        secret[PROXY] = config.proxy.encode()
    for name, path in ((CLIENT_CERT, config.client_cert), (CLIENT_KEY, config.client_key)):
        if path:
            secret[name] = _read(path)
    if signing_key:
        secret[SIGNING_KEY] = signing_key
    for what, size in (
        ("The specification and the certificates to trust", sum(len(text.encode()) for text in job.values())),
        ("The credentials and keys", sum(map(len, secret.values()))),
    ):
        if size > _MOST:
            raise InvalidInput(
                f"{what} have {size} bytes together, and Kubernetes takes {_MOST}.",
                hint="Put what is large into an input.",
            )
    return job, secret


def read_spec(job: Path) -> WorkloadSpec:
    """The specification in a job directory.

    :raises InvalidInput: there is none, or none that this version knows.
    """
    return WorkloadSpec.of(**_read_json(job / SPEC_FILE))


def read_store_config(job: Path, secret: Path) -> StoreConfig:
    """How to reach the registry, by the files of a pod.

    Credentials are in the secret directory or nowhere: the caller sees to it that the usual place of Docker's config
    file is not asked (``$DOCKER_CONFIG``).

    :raises InvalidInput: ``store.json`` is missing or malformed, or names no registry.
    """
    fields = _read_json(job / STORE_FILE)
    try:
        store = _StoreFile.model_validate(fields)
    except ValidationError as error:
        raise InvalidInput(
            f"Cannot use {job / STORE_FILE}: {problems(error, _StoreFile, 'store')}.",
            hint="Use an image with the version of the package that made the job.",
        ) from None
    if not store.registry:
        raise InvalidInput(f"{job / STORE_FILE} names no registry.")

    def there(path: Path) -> Path | None:
        return path if path.is_file() else None

    proxy = there(secret / PROXY)
    return StoreConfig(
        registry=store.registry,
        namespace=store.namespace,
        plain_http=store.plain_http,
        concurrency=store.concurrency,
        mutable_tags=tuple(store.mutable_tags),
        token_hosts=tuple(store.token_hosts),
        docker_config=there(secret / DOCKER_CONFIG),
        ca_bundle=there(job / CA_FILE),
        client_cert=there(secret / CLIENT_CERT),
        client_key=there(secret / CLIENT_KEY),
        proxy=_text(_read(proxy), proxy).strip() if proxy else "",
    )


def secrets_of(config: StoreConfig) -> tuple[str, ...]:
    """What no message may repeat; empty where nothing can be read."""
    found: list[str] = []
    if config.proxy:
        try:
            found += [config.proxy, urlsplit(config.proxy).password or ""]
        except ValueError:
            found.append(config.proxy)
    try:
        credentials = config.credentials()
    except InvalidInput:  # whoever uses them will say so
        credentials = Credentials()
    basic = credentials.basic.partition(" ")[2] if credentials.password else ""
    found += [credentials.password, credentials.identity_token, basic]
    return tuple(secret for secret in found if secret)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}.") from error


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no text in UTF-8.") from None


def _certificates(path: Path) -> str:
    if os.path.isdir(path):  # noqa: PTH112 - says no, and nothing worse, where this user may not look
        raise InvalidInput(
            f"The certificates to trust are a directory, {path}, and a pod gets one file.",
            hint="Put them into one file, one after the other.",
        )
    return _text(_read(path), path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is not JSON.") from None
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{path} holds no JSON object.")
    return {str(name): each for name, each in value.items()}
