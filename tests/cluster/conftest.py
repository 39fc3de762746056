"""Fixtures of the tests on a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster
from tests.cluster.errors import Unavailable
from tests.cluster.required import missing


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster; it is left running, and ended by ``make cluster-down``.

    Tests are skipped where none can be had, unless ``KITOPS_TESTS_REQUIRE`` names ``cluster``.
    """
    try:
        return clusters.up()
    except Unavailable as error:
        missing(str(error))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, removed after it with all in it."""
    name = f"kitops-test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    # No pod can be made before this is.
    cluster.wait(f"the service account of {name}", lambda: _has_account(cluster, name))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    # Else they would be given half a minute to end, and take their share of the node meanwhile.
    cluster.kubectl("delete", "pods", "--all", f"--namespace={name}", "--now", "--wait=false")


def _has_account(cluster: Cluster, namespace: str) -> bool:
    found = cluster.kubectl("get", "serviceaccount", "default", f"--namespace={namespace}", "--ignore-not-found")
    return bool(found)
