"""The programs of Kubernetes, built from the Go module that ``kubernetes/`` pins, once for all checkouts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError, Unavailable

_MODULE = Path(__file__).with_name("kubernetes")
_PACKAGES = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "pause": "./pause",
}


def cache() -> Path:
    """The directory for what is made once and can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-provider-kitops"


def version() -> str:
    """The version of Kubernetes, as in ``v1.34.4``."""
    found = re.search(r"^require k8s\.io/kubernetes (v[\d.]+)$", (_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{_MODULE / 'go.mod'} names no version of k8s.io/kubernetes")
    return found[1]


def directory() -> Path:
    """The directory of the programs of this version, built or not."""
    return cache() / f"kubernetes-{version()}"


def build(names: Sequence[str] = tuple(_PACKAGES)) -> Path:
    """The directory with the programs; those that are not there yet are built, which takes minutes.

    :raises Unavailable: there is no Go.
    :raises ClusterError: Go did not build them.
    """
    built = directory()
    missing = [name for name in names if not (built / name).exists()]
    if not missing:
        return built
    if shutil.which("go") is None:
        raise Unavailable("needs Go, to build Kubernetes")
    built.mkdir(parents=True, exist_ok=True)
    major, minor, _ = version().removeprefix("v").split(".")
    # Clients and the kubelet compare versions, and refuse one another without these.
    stamps = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{key}={stamps[key]}" for key in stamps)])
    print(f"Building {', '.join(missing)} {version()} (once; about five minutes)", flush=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=built) as made:
        command = ["go", "build", "-ldflags", flags, "-o", f"{made}/", *(_PACKAGES[name] for name in missing)]
        done = subprocess.run(
            command, cwd=_MODULE, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True
        )
        if done.returncode:
            raise ClusterError(f"Go did not build Kubernetes: {done.stderr[-2000:]}")
        for name in missing:
            (Path(made) / name).replace(built / name)
    return built
