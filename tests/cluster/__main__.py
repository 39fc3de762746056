"""``python -m tests.cluster up|down|status``: the cluster that tests of Kubernetes run on."""

from __future__ import annotations

import argparse
import sys
import time

from tests.cluster import cluster
from tests.cluster.errors import ClusterError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    command = parser.parse_args().command
    began = time.monotonic()
    try:
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
