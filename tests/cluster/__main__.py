"""``python -m tests.cluster build|up|down|status``: the cluster that tests of Kubernetes run on.

``build`` only makes what takes long, and what ``up`` and the tests would otherwise make: programs and images.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.cluster import binaries, cluster, images
from tests.cluster.errors import ClusterError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("command", choices=["build", "up", "down", "status"])
    command = parser.parse_args().command
    began = time.monotonic()
    try:
        if command == "build":
            print(f"Kubernetes is in {binaries.build()}")
            images.build()
            print(f"The images are built, after {time.monotonic() - began:.0f} s")
            return 0
        if command == "down":
            print("The cluster has ended" if cluster.down() else "There is no cluster")
            return 0
        found = cluster.running()
        if found is None and command == "status":
            print("The cluster does not run")
            return 1
        if found:
            print("The cluster runs")
        else:
            found = cluster.up()
            print(f"The cluster runs, after {time.monotonic() - began:.1f} s")
    except ClusterError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"KUBECONFIG={found.kubeconfig}")
    print(f"registry={found.registry or 'none'}")
    print(f"private_registry={found.private_registry or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
