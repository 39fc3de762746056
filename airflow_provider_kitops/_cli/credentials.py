"""Keeping credentials where Docker keeps them: a credential helper if one is configured, else its config file."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput, StorageError

_HELPER_TIMEOUT = 60.0
# What Docker puts in place of a user's name when the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105
# Docker keeps its own hub under an address of its own.
_SERVERS = dict.fromkeys(("docker.io", "index.docker.io", "registry-1.docker.io"), "https://index.docker.io/v1/")


def save(path: Path, registry: str, username: str, secret: str) -> str:
    """Keep the credentials of one registry and return where, in words.

    :param path: Docker's config file; made if missing, readable by its owner alone.
    :param username: empty if ``secret`` is an identity token.
    :raises InvalidInput: the config file cannot be read or is no JSON object, or its credential helper does not work.
    :raises StorageError: the file cannot be written.
    """
    config = _read(path)
    registry = _SERVERS.get(registry, registry)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        _store_by_helper(str(helper), registry, username, secret)
        return f"docker-credential-{helper}"
    entry = (
        {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()} if username else {"identitytoken": secret}
    )
    config.setdefault("auths", {})[registry] = entry
    _write(path, config)
    return str(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInput(
            f"Cannot read the Docker config file {path}: {error.strerror}.", hint="Name another with --docker-config."
        ) from error
    except (ValueError, RecursionError):
        # The parser's error carries the whole document, which holds secrets.
        raise InvalidInput(f"{path} is not JSON.", hint="Repair it, or name another with --docker-config.") from None
    if not isinstance(config, dict) or not isinstance(config.get("auths", {}), dict):
        raise InvalidInput(f"{path} is not a Docker config file.", hint="Name another with --docker-config.")
    return config


def _write(path: Path, config: dict[str, Any]) -> None:
    data = json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"
    # A link in the place of the file (people keep it among their dotfiles) is followed, not replaced.
    path = path.resolve()
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"Cannot write the credentials to {path}: {error.strerror}.") from error


def _store_by_helper(helper: str, registry: str, username: str, secret: str) -> None:
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidInput(f"{helper!r} is no name of a credential helper.")
    program = f"docker-credential-{helper}"
    request = {"ServerURL": registry, "Username": username or _TOKEN_USER, "Secret": secret}
    try:
        # The secret goes through a pipe: what is in a process's arguments, everybody can read.
        subprocess.run(
            [program, "store"],
            input=json.dumps(request).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_HELPER_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(
            f"The credential helper {program} did not keep the credentials of {registry}: {type(error).__name__}.",
            hint="Check that it is installed and works, or take it out of Docker's config file.",
        ) from None
