"""A real registry (Debian's docker-registry 2.8) on a free port of this machine, with its files in a directory.

Use ``run_registry``, or the fixtures ``registry`` (anonymous) and ``private_registry`` (basic authentication), which
``tests/integration/conftest.py`` makes known. Tests that need them are skipped where the program is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USERNAME, PASSWORD = "robot", "correct horse: battery"


@dataclass(frozen=True)
class Registry:
    """A registry that runs.

    :param host: ``127.0.0.1:port``; it speaks plain HTTP.
    :param root: its storage; what a registry keeps of a blob is at ``blob(digest)``.
    :param username: empty if it asks for none.
    """

    host: str
    root: Path
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.root / "docker/registry/v2/blobs" / algorithm / encoded[:2] / encoded / "data"

    def blobs(self) -> int:
        """How many blobs and manifests it stores."""
        return sum(1 for _ in self.root.glob("docker/registry/v2/blobs/*/*/*/data"))

    def uploads(self, repository: str) -> int:
        """How many uploads of a repository hold bytes and have not been ended."""
        directory = self.root / "docker/registry/v2/repositories" / repository / "_uploads"
        return sum(1 for _ in directory.glob("*/data"))


@contextlib.contextmanager
def run_registry(
    directory: Path,
    *,
    username: str = "",
    password: str = "",
    delete: bool = True,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Registry]:
    """Run a registry until the block ends.

    :param directory: for its configuration, storage and log; a second run on the same one finds what was stored.
    :param username: with ``password``: basic authentication; empty: everybody may do everything.
    :param delete: whether it lets manifests and blobs be deleted.
    :param port: a free one by default.
    :param settings: more of its ``REGISTRY_...`` settings.
    """
    if shutil.which("docker-registry") is None or (username and shutil.which("htpasswd") is None):
        reason = "needs docker-registry and htpasswd (Debian's docker-registry and apache2-utils)"
        if "registry" in os.environ.get("KITOPS_TESTS_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    root = directory / "storage"
    root.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "REGISTRY_HTTP_ADDR": host,
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root),
        "REGISTRY_STORAGE_DELETE_ENABLED": str(delete).lower(),
        "REGISTRY_HTTP_SECRET": "upload sessions outlive a restart",
        **(settings or {}),
    }
    if username:
        passwords = directory / "htpasswd"
        with passwords.open("wb") as file:
            subprocess.run(["htpasswd", "-niB", username], input=password.encode(), stdout=file, check=True)
        environment |= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "tests",
            "REGISTRY_AUTH_HTPASSWD_PATH": str(passwords),
        }
    config = directory / "config.yml"
    config.write_text("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {}}\nhttp: {addr: ''}\n")
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process, host, directory / "log")
            yield Registry(host, root, username, password)
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    address, _, port = host.partition(":")
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((address, int(port)), timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"docker-registry does not run: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for no credentials."""
    with run_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with one user, ``USERNAME`` and ``PASSWORD``."""
    directory = tmp_path_factory.mktemp("private-registry")
    with run_registry(directory, username=USERNAME, password=PASSWORD) as running:
        yield running
