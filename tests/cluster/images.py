"""The images that pods of the tests run, in the registry of the cluster and on its node.

``steps`` and ``trainer`` are built from ``images/`` as everybody builds them, by buildah, on a base that Debian's
packages make: no image is pulled from anywhere. What was built is kept in the cache; after a change of the package only
its own small layer is built and pushed. The trainer is the CPU variant.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_kitops import __version__
from tests.cluster import tiny_image
from tests.cluster.binaries import cache
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.required import missing

_ROOT = Path(__file__).parents[2]
_DEBIAN = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_APPLETS = ["sh", "cat", "cp", "echo", "env", "false", "id", "ls", "mkdir", "nc", "sleep", "test", "true", "wget"]
# Seconds; the trainer downloads gigabytes where the cache is empty.
_BUILD_PATIENCE = 2000


def busybox_image(cluster: Cluster) -> str:
    """A small image with a shell and what scripts need, by digest."""
    busybox = shutil.which("busybox")
    if busybox is None:
        missing("needs Debian's busybox-static, for the image of small pods")
    files = {"/bin/busybox": Path(busybox)}
    links = [f"/bin/{applet}" for applet in _APPLETS]
    repository = "airflow-provider-kitops/busybox"
    digest = tiny_image.push(_registry(cluster), repository, "latest", files, links, Env=["PATH=/bin"], Cmd=["sh"])
    return f"{cluster.registry}/{repository}@{digest}"


def steps_image(cluster: Cluster) -> str:
    """The image of the steps that fetch and publish, by tag and digest; built if it is not there as the sources say."""
    return _provide(cluster, "steps", __version__)


def trainer_image(cluster: Cluster) -> str:
    """The image of the reference programs for CPUs, by tag and digest; built if it is not there as the sources say."""
    return _provide(cluster, "trainer", f"{__version__}-cpu")


def build() -> None:
    """Build the images, which takes minutes where the cache is empty; no cluster is needed for it."""
    with _alone():
        for name in ("steps", "trainer"):
            _build(name)


def _provide(cluster: Cluster, name: str, tag: str) -> str:
    repository = f"airflow-provider-kitops/{name}"
    reference = f"{_registry(cluster)}/{repository}:{tag}"
    with _alone():
        key = _key()
        pushed = cache() / "images" / f"{name}-{key}-{cluster.registry.replace(':', '_')}"
        digest = pushed.read_text() if pushed.exists() else ""
        if not digest or not tiny_image.has(cluster.registry, repository, digest):
            _build(name)
            pushed.unlink(missing_ok=True)
            made = pushed.with_suffix(".new")
            # All of it stays on this machine, where compressing takes longer than writing.
            _buildah(
                "push", "--quiet", "--tls-verify=false", "--disable-compression", f"--digestfile={made}",
                f"{repository}:{tag}", f"docker://{reference}",
            )  # fmt: skip
            digest = made.read_text()
            made.replace(pushed)
    if cluster.machine:
        # Ahead of the first pod, whose test would wait for it; by the name that the kubelet looks for.
        hosts = str(cluster.machine.root / "config/registries")
        cluster.machine.ctr("images", "pull", "--hosts-dir", hosts, f"{cluster.registry}/{repository}@{digest}")
    return f"{reference}@{digest}"


def _build(name: str) -> None:
    base = _base()
    uv_cache = Path(os.environ.get("UV_CACHE_DIR") or cache().with_name("uv"))  # make has filled it for .venv
    uv_cache.mkdir(parents=True, exist_ok=True)
    settings = {
        "ENGINE": "buildah",
        "BASE": base,
        "TORCH": "cpu",
        # A directory that every image has, so that no trace is left of the cache.
        "BUILD_OPTIONS": f"--volume {uv_cache}:/mnt --build-arg UV_OPTIONS=--cache-dir=/mnt",
    }
    certificates = ssl.get_default_verify_paths().cafile
    if certificates:
        settings["CA_BUNDLE"] = certificates
    _run([str(_ROOT / "images/build.sh"), name], settings)


def _base() -> str:
    """The base image, made of Debian's packages."""
    name = f"localhost/airflow-provider-kitops-base:{_DEBIAN}-{hashlib.sha256(_PACKAGES.encode()).hexdigest()[:8]}"
    found = subprocess.run(["buildah", "inspect", "--type=image", name], env=_environment({}), capture_output=True)
    if found.returncode == 0:
        return name
    context = cache() / "images" / "base"
    context.mkdir(parents=True, exist_ok=True)
    _run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", _DEBIAN, str(context / "base.tar")], {}
    )
    (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    _buildah("build", "--quiet", "--format=oci", f"--tag={name}", str(context))
    shutil.rmtree(context)
    return name


def _key() -> str:
    """What the images are made from, as a digest."""
    files = [_ROOT / "constraints.txt", _ROOT / "pyproject.toml", _ROOT / "README.md", _ROOT / "LICENSE"]
    files += [_ROOT / "images" / file for file in ("build.sh", "without_gpu.py", "workload.Dockerfile")]
    files += [path for path in (_ROOT / "airflow_provider_kitops").rglob("*") if "__pycache__" not in path.parts]
    content = hashlib.sha256(f"{_DEBIAN} {_PACKAGES}".encode())
    for file in sorted(file for file in files if file.is_file()):
        content.update(f"{file.relative_to(_ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:16]


def _buildah(*arguments: str) -> None:
    _run(["buildah", *arguments], {})


def _run(command: list[str], settings: Mapping[str, str]) -> None:
    for program, package in {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}.items():
        if shutil.which(program) is None:
            missing(f"needs Debian's {package}, to build images")
    done = subprocess.run(
        command, env=_environment(settings), cwd=_ROOT, capture_output=True, text=True, timeout=_BUILD_PATIENCE
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-2000:]}")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of buildah: storage of the tests' own, and no more of a container than this machine allows."""
    images = cache() / "images"
    images.mkdir(parents=True, exist_ok=True)
    storage = images / "storage.conf"
    content = f'[storage]\ndriver = "overlay"\ngraphroot = "{images}/storage"\nrunroot = "{images}/run"\n'
    if not storage.exists() or storage.read_text() != content:
        storage.write_text(content)
    own = {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}
    return {**os.environ, **own, **settings}


def _registry(cluster: Cluster) -> str:
    if not cluster.registry:
        missing("needs KITOPS_TESTS_REGISTRY to name a registry that the cluster of KUBECONFIG pulls from")
    return cluster.registry


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time builds images."""
    lock = cache() / "images.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
