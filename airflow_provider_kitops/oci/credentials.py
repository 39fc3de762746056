"""Who we are to a registry: given credentials, or those of Docker's config file and credential helpers.

The config file is Docker's: ``auths``, ``credHelpers`` and ``credsStore``, asked in the order in which a person
would expect the more exact to win.
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

from airflow_provider_kitops.oci.errors import InvalidInput

_HELPER_TIMEOUT = 60.0
# What a credential helper answers in place of a user's name when the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")

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

    :param path: the file, or the directory that holds ``config.json``; by default as docker looks for it: in
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
    return path / "config.json" if os.path.isdir(path) or not path.suffix else path  # noqa: PTH112


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
    config = _read_config(path, required=docker_config is not None)
    names = _names(registry)
    helpers = _section(config, "credHelpers", path)
    for name in names:
        if name in helpers:
            return _ask_helper(str(helpers[name]), name, path)
    entries = _section(config, "auths", path)
    for key, entry in entries.items():
        if _plain_name(key) in names and isinstance(entry, Mapping):
            found = _from_entry(entry, key, path)
            if found:
                return found
    store = config.get("credsStore")
    if store:
        # Docker's hub is kept under its old address.
        server = "https://index.docker.io/v1/" if registry in _DOCKER_HUB else registry
        try:
            return _ask_helper(str(store), server, path)
        except FileNotFoundHelper:
            # A config file that came from another machine names a store for everything: no reason to refuse a
            # registry that may need no credentials.
            logger.warning("%s names the credential store %r, which is not installed here.", path, store)
    return Credentials()


class FileNotFoundHelper(InvalidInput):
    """The program of a credential helper is not installed."""


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


def _names(registry: str) -> tuple[str, ...]:
    return _DOCKER_HUB if registry in _DOCKER_HUB else (registry,)


def _plain_name(key: str) -> str:
    """``https://host/v1/`` and its like as ``host``."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _read_config(path: Path, *, required: bool) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        if required:
            raise InvalidInput(f"There is no Docker config file {path}.", hint="Name another, or none.") from None
        return {}
    except OSError as error:
        if required:
            raise InvalidInput(f"Cannot read the Docker config file {path}: {error.strerror}.") from error
        logger.warning("Cannot read the Docker config file %s: %s.", path, error.strerror)
        return {}
    except (ValueError, RecursionError):
        # The parser's own message could show part of the file, which holds secrets.
        raise InvalidInput(f"The Docker config file {path} is not JSON.", hint="Repair it, or name another.") from None
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is not a Docker config file.", hint="Repair it, or name another.")
    return config


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


def _ask_helper(helper: str, server: str, path: Path) -> Credentials:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise InvalidInput(f"{helper!r} in {path} is no name of a credential helper.")
    program = f"docker-credential-{helper}"
    hint = f"Check that {program} works here, or take it out of {path}."
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise FileNotFoundHelper(f"{path} names {program}, which is not installed here.", hint=hint) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(f"{program} failed for {server}: {type(error).__name__}.", hint=hint) from None
    if done.returncode != 0:
        # The protocol's way to say that it knows nothing; other output is not shown, for it may hold a secret.
        if b"credentials not found" in done.stdout:
            return Credentials()
        raise InvalidInput(f"{program} failed for {server} with exit code {done.returncode}.", hint=hint)
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f"{program} gave no usable answer for {server}.", hint=hint) from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=str(secret))
    return Credentials(str(username), str(secret))
