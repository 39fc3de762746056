"""Who we are to a registry: given credentials, or those that Docker's config file and credential helpers keep.

The config file is Docker's. ``credHelpers`` and ``auths``, which speak of one registry, go before ``credsStore``, which
speaks of all. In each, a registry may stand under several spellings: ``host``, ``https://host``, ``https://host/v1/``,
and Docker's hub under its old address; the more exact wins, wherever in the file it stands.

Credentials are for a registry as a whole. A name with a path, ``host/team``, is for the repositories below it
(containers-auth.json(5)): it is passed over, for its credentials are not the registry's.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_kitops.oci.disk import make_directory, write_file
from airflow_provider_kitops.oci.errors import InvalidInput

_HELPER_TIMEOUT = 60.0
# What a credential helper answers in place of a user's name when the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105
# Docker's hub, and the address under which Docker keeps its credentials.
_HUB = ("index.docker.io", "docker.io", "registry-1.docker.io")
_HUB_SERVER = "https://index.docker.io/v1/"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """What a registry may be told.

    :param username: user, or empty.
    :param password: password or access token that goes with the user.
    :param identity_token: token to be exchanged at the registry's token service, instead of user and password.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token)

    @property
    def basic(self) -> str:
        """The value of a basic ``Authorization`` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def docker_config_file(path: Path | None = None) -> Path:
    """Docker's config file.

    :param path: the file, or the directory that holds ``config.json``; what does not exist is a file if its name has a
        suffix. By default as docker looks for it: in
        ``$DOCKER_CONFIG``, else in ``$HOME/.docker``.
    :raises InvalidInput: it would be below a home directory, and it is not known where that is.
    """
    if path is None:
        usual = _usual_directory()
        if usual is None:
            raise InvalidInput(
                "There is no place for a Docker config file: neither DOCKER_CONFIG nor HOME is set, "
                f"and the user {os.getuid()} is in no list of users.",
                hint="Set DOCKER_CONFIG to a directory, or name the file.",
            )
        return usual / "config.json"
    try:
        path = path.expanduser()
    except RuntimeError:
        raise InvalidInput(
            f"The Docker config file would be {path}, and it is not known where that home directory is.",
            hint="Name it by its whole path.",
        ) from None
    # Says no, and nothing worse, where this user may not look.
    directory = os.path.isdir(path) or not (path.suffix or os.path.isfile(path))  # noqa: PTH112, PTH113
    return path / "config.json" if directory else path


def find_credentials(registry: str, docker_config: Path | None = None) -> Credentials:
    """What Docker's config file or a credential helper named in it knows about a registry.

    :param registry: ``host[:port]``.
    :param docker_config: see ``docker_config_file``; one that is named has to exist.
    :return: empty credentials if they know nothing.
    :raises InvalidInput: the file is missing or malformed, or the helper fails.
    """
    if docker_config is None and _usual_directory() is None:
        return Credentials()
    path = docker_config_file(docker_config)
    try:
        config = _read_config(path)
    except _Unreadable as error:
        if docker_config is not None:
            raise
        logger.warning("%s", error.message)
        return Credentials()
    if config is None:
        if docker_config is not None:
            raise InvalidInput(f"There is no Docker config file {path}.", hint="Name another, or none.")
        return Credentials()
    if own := _own_helper(config, registry, path):
        return _get_from_helper(*own, path)
    for key, entry in _spelled(_section(config, "auths", path), registry):
        if isinstance(entry, Mapping) and (found := _from_entry(entry, key, path)):
            return found
    if store := config.get("credsStore"):
        try:
            return _get_from_helper(str(store), _server(registry), path)
        except FileNotFoundHelper:
            # A config file that came from another machine names a store for everything: no reason to refuse a
            # registry that may need no credentials.
            logger.warning("%s names the credential store %r, which is not installed here.", path, store)
    return Credentials()


def docker_config(registry: str, credentials: Credentials) -> dict[str, Any]:
    """A Docker config file, as JSON, that holds the credentials of one registry and nothing else.

    ``find_credentials`` reads it, and so does whatever takes a secret of the type ``kubernetes.io/dockerconfigjson``.

    :param registry: ``host[:port]``.
    """
    entry = _to_entry(credentials)
    if not credentials.identity_token:
        entry = {"username": credentials.username, "password": credentials.password, **entry}
    return {"auths": {_server(registry): entry}}


def save_credentials(registry: str, credentials: Credentials, path: Path) -> str:
    """Keep the credentials of a registry where ``find_credentials`` finds them, and return where that is, in words.

    That is the credential helper that the config file names for the registry or for all, or else the file itself.
    What the file held for the registry, under whatever spelling, is taken out.

    :param registry: ``host[:port]``.
    :param path: Docker's config file; made if missing, readable by its owner alone.
    :raises InvalidInput: the config file cannot be read or is none, or its credential helper does not work.
    :raises StorageError: the file cannot be written.
    """
    config = _read_config(path) or {}
    store = config.get("credsStore")
    helper, server = _own_helper(config, registry, path) or (str(store) if store else "", _server(registry))
    entries = _section(config, "auths", path)
    old = [key for key, _ in _spelled(entries, registry)]
    kept = {key: entry for key, entry in entries.items() if key not in old}
    if helper:
        _store_in_helper(helper, server, credentials, path)
        if old:
            _write_config(path, {**config, "auths": kept})
        return _program(helper, path)
    _write_config(path, {**config, "auths": {**kept, server: _to_entry(credentials)}})
    return str(path)


class FileNotFoundHelper(InvalidInput):
    """The program of a credential helper is not installed."""


class _Unreadable(InvalidInput):
    """The config file is there and cannot be read."""


def _usual_directory() -> Path | None:
    """Where docker keeps its config file; None for a user without a home, as in many a container."""
    if named := os.environ.get("DOCKER_CONFIG"):
        return Path(named)
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(home) / ".docker"


def _server(registry: str) -> str:
    """The name under which Docker keeps the credentials of a registry."""
    return _HUB_SERVER if registry.lower() in _HUB else registry.lower()


def _spelled(entries: Mapping[str, Any], registry: str) -> list[tuple[str, Any]]:
    """The entries whose name is one for the registry, the more exact first."""
    hosts = _HUB if registry.lower() in _HUB else (registry.lower(),)
    spellings = [_server(registry)]
    for host in hosts:
        # Without a scheme, host/v1 is for the repositories below v1.
        spellings += [f"{host}{path}" for path in ("", "/", "/v1/", "/v2/")]
        spellings += [
            f"{scheme}://{host}{path}"
            for scheme in ("https", "http")
            for path in ("", "/", "/v1/", "/v1", "/v2/", "/v2")
        ]
    exactness = {name: at for at, name in reversed(list(enumerate(spellings)))}
    found = [key for key in entries if key.lower() in exactness]
    # A host is one in whatever case; of several that differ in it alone, that in lower case is the more exact.
    found.sort(key=lambda key: (exactness[key.lower()], key != key.lower()))
    return [(key, entries[key]) for key in found]


def _own_helper(config: Mapping[str, Any], registry: str, path: Path) -> tuple[str, str] | None:
    """The credential helper for this very registry, and the name under which it keeps it."""
    for key, helper in _spelled(_section(config, "credHelpers", path), registry):
        if helper:
            return str(helper), key
    return None


def _read_config(path: Path) -> dict[str, Any] | None:
    """The config file; None if there is none.

    :raises InvalidInput: it cannot be read, or is no config file.
    """
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _Unreadable(
            f"Cannot read the Docker config file {path}: {error.strerror}.", hint="Repair it, or name another."
        ) from error
    except (ValueError, RecursionError):
        # The parser's own message could show part of the file, which holds secrets.
        raise InvalidInput(f"The Docker config file {path} is not JSON.", hint="Repair it, or name another.") from None
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is not a Docker config file.", hint="Repair it, or name another.")
    return config


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    # A link in the place of the file (people keep it among their dotfiles) is followed, not replaced.
    path = path.resolve()
    make_directory(path.parent, 0o700)
    write_file(path, json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n", 0o600)


def _section(config: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise InvalidInput(f"{name} in {path} is not an object.", hint="Repair the file, or name another.")
    return section


def _from_entry(entry: Mapping[str, Any], key: str, path: Path) -> Credentials:
    if entry.get("identitytoken"):
        return Credentials(identity_token=str(entry["identitytoken"]))
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidInput(f"The credentials of {key} in {path} are malformed.", hint="Log in again.")
        return Credentials(username, password.rstrip("\0"))
    return Credentials(str(entry.get("username") or ""), str(entry.get("password") or ""))


def _to_entry(credentials: Credentials) -> dict[str, str]:
    if credentials.identity_token:
        return {"identitytoken": credentials.identity_token}
    return {"auth": credentials.basic.removeprefix("Basic ")}


def _get_from_helper(helper: str, server: str, path: Path) -> Credentials:
    program = _program(helper, path)
    done = _run_helper(program, "get", server.encode(), server, path)
    # The protocol's way to say that it knows nothing.
    if done.returncode != 0 and b"credentials not found" in done.stdout:
        return Credentials()
    _check_done(program, done, server, path)
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f"{program} gave no usable answer for {server}.", hint=_advice(program, path)) from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=str(secret))
    return Credentials(str(username), str(secret))


def _store_in_helper(helper: str, server: str, credentials: Credentials, path: Path) -> None:
    program = _program(helper, path)
    user = _TOKEN_USER if credentials.identity_token else credentials.username
    request = {"ServerURL": server, "Username": user, "Secret": credentials.identity_token or credentials.password}
    _check_done(program, _run_helper(program, "store", json.dumps(request).encode(), server, path), server, path)


def _run_helper(program: str, verb: str, data: bytes, server: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a credential helper. Secrets go through a pipe: a process's arguments everybody can read."""
    try:
        return subprocess.run([program, verb], input=data, capture_output=True, timeout=_HELPER_TIMEOUT, check=False)
    except FileNotFoundError:
        raise FileNotFoundHelper(
            f"{path} names {program}, which is not installed here.", hint=_advice(program, path)
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(
            f"{program} failed for {server}: {type(error).__name__}.", hint=_advice(program, path)
        ) from None


def _check_done(program: str, done: subprocess.CompletedProcess[bytes], server: str, path: Path) -> None:
    if done.returncode != 0:
        # Its output is not shown, for it may hold a secret.
        raise InvalidInput(
            f"{program} failed for {server} with exit code {done.returncode}.", hint=_advice(program, path)
        )


def _program(helper: str, path: Path) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise InvalidInput(f"{helper!r} in {path} is no name of a credential helper.")
    return f"docker-credential-{helper}"


def _advice(program: str, path: Path) -> str:
    return f"Check that {program} works here, or take it out of {path}."
