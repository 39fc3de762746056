"""The images that pods of the tests run, in the cluster's registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster import tiny_image
from tests.cluster.cluster import Cluster
from tests.cluster.errors import Unavailable

_APPLETS = ["sh", "cat", "cp", "echo", "env", "false", "id", "ls", "mkdir", "nc", "sleep", "test", "true", "wget"]


def busybox_image(cluster: Cluster) -> str:
    """A small image with a shell and what scripts need, by digest."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("needs Debian's busybox-static, for the image of small pods")
    files = {"/bin/busybox": Path(busybox)}
    links = [f"/bin/{applet}" for applet in _APPLETS]
    repository = "airflow-provider-kitops/busybox"
    digest = tiny_image.push(_registry(cluster), repository, "latest", files, links, Env=["PATH=/bin"], Cmd=["sh"])
    return f"{cluster.registry}/{repository}@{digest}"


def _registry(cluster: Cluster) -> str:
    if not cluster.registry:
        pytest.skip("needs KITOPS_TESTS_REGISTRY to name a registry that the cluster of KUBECONFIG pulls from")
    return cluster.registry
