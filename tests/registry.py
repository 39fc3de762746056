"""Real registries on free ports of this machine, with their files in a directory.

``run_registry`` runs Debian's docker-registry 2.8; the fixtures ``registry`` (anonymous) and ``private_registry``
(basic authentication) are that. ``run_referrers_registry`` runs one that has the referrers API, and differs in what
``Registry`` tells; the fixture ``referrers_registry`` is that. ``each_registry`` and ``open_registry`` are one of both,
for tests of what must hold at any. ``tests/integration/conftest.py`` makes them known. Tests are skipped where a
program is missing, unless ``KITOPS_TESTS_REQUIRE`` names it (``registry``, ``go``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

USERNAME, PASSWORD = "robot", "correct horse: battery"


@dataclass(frozen=True)
class Registry:
    """A registry that runs.

    :param host: ``127.0.0.1:port``; it speaks plain HTTP.
    :param root: its storage; what a registry keeps of a blob is at ``blob(digest)``.
    :param username: empty if it asks for none.
    :param full: whether it does all that docker-registry does. The other mounts no blob from another repository (there,
        each has the blobs of all), takes manifests whose blobs are missing, and keeps the tags of a manifest that was
        deleted; its manifests do not outlive it.
    """

    host: str
    root: Path
    username: str = ""
    password: str = field(default="", repr=False)
    full: bool = True

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        if not self.full:
            return self.root / algorithm / encoded
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
        _missing("registry", "docker-registry and htpasswd (Debian's docker-registry and apache2-utils)")
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
    with _running(["docker-registry", "serve", str(config)], environment, host, directory / "log"):
        yield Registry(host, root, username, password)


@contextlib.contextmanager
def run_referrers_registry(directory: Path, *, port: int | None = None) -> Iterator[Registry]:
    """Run a registry with the referrers API until the block ends: go-containerregistry's, over ``main.go``.

    :param directory: for its storage and log.
    :param port: a free one by default.
    """
    program = _built()
    root = directory / "storage"
    root.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_port()}"
    with _running([str(program), host, str(root)], {}, host, directory / "log"):
        yield Registry(host, root, full=False)


def _built() -> Path:
    """The program, made once for all checkouts with the same sources."""
    sources = sorted(path for path in (Path(__file__).parent / "referrers_registry").iterdir() if path.is_file())
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-provider-kitops"
    program = cache / "referrers-registry" / key
    if not program.exists():
        if shutil.which("go") is None:
            _missing("go", "Go, to build the registry with the referrers API")
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_name(f"{key}.{os.getpid()}.new")
        command = ["go", "build", "-o", str(made), "."]
        subprocess.run(command, cwd=sources[0].parent, check=True, timeout=280)
        made.replace(program)
    return program


def _missing(what: str, needed: str) -> NoReturn:
    if what in os.environ.get("KITOPS_TESTS_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"needs {needed}")
    pytest.skip(f"needs {needed}")


@contextlib.contextmanager
def _running(command: list[str], environment: Mapping[str, str], host: str, log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)
        try:
            _wait(process, host, log)
            yield
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
    raise RuntimeError(f"The registry does not run: {log.read_text()[-2000:]}")


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


@pytest.fixture(scope="session")
def referrers_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with the referrers API, which asks for no credentials."""
    with run_referrers_registry(tmp_path_factory.mktemp("referrers-registry")) as running:
        yield running


@pytest.fixture(params=["registry", "referrers_registry"])
def open_registry(request: pytest.FixtureRequest) -> Registry:
    """One registry after the other, neither of which asks for credentials; checking a password takes its time."""
    found: Registry = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["private_registry", "referrers_registry"])
def each_registry(request: pytest.FixtureRequest) -> Registry:
    """One registry after the other: with a password and the tag schema for referrers, and with their API."""
    found: Registry = request.getfixturevalue(request.param)
    return found
