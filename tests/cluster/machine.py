"""Where the cluster of this machine lies: its directory, its addresses, its bridge."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

BRIDGE = "kitops0"
_BRIDGE_ADDRESS = "02:6b:69:74:6f:70"  # of those that nobody assigns
NETWORK = "airflow-provider-kitops"
NODE = "kitops-test"
# Nothing but the API server speaks with etcd; pods cannot reach a loopback address.
LOOPBACK = "127.83.0.1"
_NETWORKS = [ipaddress.IPv4Network(f"10.{second}.83.0/24") for second in range(211, 256)]
_LONGEST_SOCKET = 107
# Directories of others that the cluster's programs insist on; removed if they are left empty.
_SHARED = [
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/run/containerd/s",
    "/run/containerd",
]


@dataclass(frozen=True)
class Machine:
    """The cluster's own part of this machine.

    :param root: the directory of its state; removed with it.
    :param address: the bridge's, which servers listen at and pods reach.
    :param network: of the pods and the bridge.
    :param binaries: the directory of Kubernetes' programs.
    """

    root: Path
    address: str
    network: str
    binaries: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def registry(self) -> str:
        return f"{self.address}:5000"

    @property
    def private_registry(self) -> str:
        return f"{self.address}:5001"

    @property
    def server(self) -> str:
        return f"https://{self.address}:6443"

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.root / "containerd.sock"

    def pid_file(self, component: str) -> Path:
        return self.root / "pids" / component

    def log(self, component: str) -> Path:
        return self.root / "logs" / f"{component}.log"

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client on the kubelet's containers and images."""
        return run("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments)


def state() -> Path:
    """The directory of the cluster's state, outside every checkout: there is one cluster on a machine."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    directory = Path(home) / "airflow-provider-kitops" / "cluster"
    if len(str(directory / "containerd.sock.ttrpc")) > _LONGEST_SOCKET:
        raise ClusterError(f"{directory} is too long a name for sockets; set XDG_STATE_HOME to a shorter one")
    return directory


def boot() -> str:
    """What is another one after the machine was started anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def claim(binaries: Path) -> Machine:
    """The machine's part that is recorded for this boot, or else a new one, with a network that nothing here uses."""
    record = state() / "machine.json"
    if record.exists():
        known = json.loads(record.read_text())
        return Machine(state(), known["address"], known["network"], binaries)
    network = _free_network()
    machine = Machine(state(), str(network[1]), str(network), binaries)
    machine.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = record.with_suffix(".new")
    known = {"boot": boot(), "binaries": str(binaries), "address": machine.address, "network": machine.network}
    new.write_text(json.dumps(known))
    new.replace(record)
    return machine


def claimed(binaries: Path) -> bool:
    """Whether a cluster of these programs was started since the machine was, and its pods still have their network."""
    record = state() / "machine.json"
    if not record.exists() or not Path(f"/sys/class/net/{BRIDGE}").exists():
        return False
    known = json.loads(record.read_text())
    return (known["boot"], known.get("binaries")) == (boot(), str(binaries))


def make_bridge(machine: Machine) -> None:
    """Make the bridge that servers listen at, before the first pod would."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        # One that is given no address takes that of a pod, and another when that pod goes: for half a minute the others
        # send to where nobody is.
        run("ip", "link", "add", BRIDGE, "address", _BRIDGE_ADDRESS, "type", "bridge")
    prefix = ipaddress.ip_network(machine.network).prefixlen
    run("ip", "address", "replace", f"{machine.address}/{prefix}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def clear() -> None:
    """Remove what the cluster leaves on the machine when its processes have ended."""
    root = state()
    # One is shared by the containers of a pod.
    sockets = {Path(file.read_text().removeprefix("unix://")) for file in root.glob("run/*/k8s.io/*/address")}
    mounted = [line.split()[4].replace(r"\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in mounted if point.startswith(f"{root}/")]):
        run("umount", "--lazy", point)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "delete", BRIDGE)
    # Containerd's shims, the kubelet and the network's plugins keep these outside the directories they are given.
    sockets.add(Path("/var/lib/kubelet/device-plugins/kubelet.sock"))
    results = [file for file in Path("/var/lib/cni/results").glob("*") if f"{root}/run/" in file.read_text()]
    for leftover in [*filter(_unused, sockets), *results]:
        leftover.unlink()
    for directory in map(Path, _SHARED):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
    if root.exists():
        shutil.rmtree(root)


def run(*command: str, text: str | None = None) -> str:
    """Run a program to its end; what it wrote.

    :raises ClusterError: it failed; with what it said.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _unused(path: Path) -> bool:
    """Whether a socket was left by a process that has ended."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) != 0


def _free_network() -> ipaddress.IPv4Network:
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
    used = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route["dst"] != "default" and route.get("dev") != BRIDGE
    ]
    for network in _NETWORKS:
        if not any(network.overlaps(other) for other in used):
            return network
    raise ClusterError("All networks 10.211.83.0/24 to 10.255.83.0/24 are in use here")
