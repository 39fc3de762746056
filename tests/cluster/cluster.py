"""A cluster for tests: this machine's own, started when it is asked for, or the one that ``KUBECONFIG`` names.

``up`` gives the cluster, ``down`` ends the machine's own. Both may be called at any time, from several processes, and
after anything of it was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.cluster import binaries, components, machine, processes
from tests.cluster.errors import ClusterError, Unavailable
from tests.cluster.machine import Machine

ComponentName = Literal["kube-apiserver", "kubelet", "kube-controller-manager", "kube-scheduler"]
_PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
# Seconds that a component has before it is taken for broken; a loaded machine needs some of them.
_PATIENCE = 90


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes cluster that tests run on.

    :param kubeconfig: how it is reached, as an administrator.
    :param registry: ``host:port`` of a registry without credentials, over plain HTTP, that the machine and pods reach;
        images are pulled from it whatever registry they name. Empty if the cluster is not this machine's own and
        ``KITOPS_TESTS_REGISTRY`` names none.
    :param private_registry: the same with the credentials of ``tests.registry``, or ``KITOPS_TESTS_PRIVATE_REGISTRY``.
    :param node: the name of a node; the machine's own cluster has one.
    :param machine: the cluster's part of this machine, if it is its own.
    """

    kubeconfig: Path
    registry: str
    private_registry: str
    node: str
    machine: Machine | None = None

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess calls it
        """Run kubectl; what it wrote.

        :raises ClusterError: it failed.
        """
        return machine.run(_kubectl(self.machine), f"--kubeconfig={self.kubeconfig}", *arguments, text=input)

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get`` says, read from JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = 60) -> Any:
        """Wait until ``condition`` returns something true.

        :param what: for the error's message.
        :param timeout: seconds.
        """
        end = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > end:
                raise ClusterError(f"Waited {timeout:g} s for {what}")
            time.sleep(0.25)
        return found

    def stop(self, component: ComponentName, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """End a component, as a crash does unless another signal is given, and leave it so."""
        processes.stop(self._own("a component is stopped").pid_file(component), with_signal)

    def start(self, component: ComponentName) -> None:
        """Start a component that was stopped, with the same settings, and wait until it answers."""
        _start(self._own("a component is started"), component)

    def restart(self, component: ComponentName, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """``stop`` and ``start``."""
        self.stop(component, with_signal)
        self.start(component)

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """Send SIGKILL to the first process of a container, as the kernel does when memory runs out."""
        own = self._own("a container's process is killed")
        status = self.get("pod", pod, f"--namespace={namespace}")["status"]
        statuses = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        ids = [found["containerID"] for found in statuses if found["name"] == container and "containerID" in found]
        if not ids:
            raise ClusterError(f"Pod {namespace}/{pod} has no container {container} that was started")
        own.ctr("tasks", "kill", "--signal", "SIGKILL", ids[0].removeprefix("containerd://"))

    def set_gpus(self, count: int) -> None:
        """Let the node say that it has so many GPUs. Pods that ask for them are scheduled; they find no device.

        The kubelet sets them to none when it is started.
        """
        value = str(count)
        resources = {"nvidia.com/gpu": value}
        patch = {"status": {"capacity": resources, "allocatable": resources}}
        self.kubectl("patch", "node", self.node, "--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}")

    def _own(self, what: str) -> Machine:
        if self.machine is None:
            pytest.skip(f"{what}, which is done to this machine's own cluster only, and KUBECONFIG names another")
        return self.machine


def up() -> Cluster:
    """The cluster; what does not run is started.

    :raises Unavailable: this machine cannot have one.
    :raises ClusterError: it does not come up, or the one that KUBECONFIG names does not answer.
    """
    if outside := _outside():
        return _found(outside)
    _check_machine()
    programs = binaries.build()
    with _alone():
        if not machine.claimed(programs):
            _end()
        own = machine.claim(programs)
        try:
            _repair(own)
        except ClusterError as error:
            print(f"The cluster cannot be repaired, and is made anew: {error}", file=sys.stderr, flush=True)
            _end()
            own = machine.claim(programs)
            _repair(own)
    return _cluster(own)


def running() -> Cluster | None:
    """The cluster if all of it runs; nothing is started."""
    if outside := _outside():
        return _found(outside)
    if not machine.claimed(binaries.directory()):
        return None
    own = machine.claim(binaries.directory())
    return _cluster(own) if not unhealthy(own) else None


def unhealthy(own: Machine) -> list[str]:
    """The components that do not run or do not answer."""
    return [
        name
        for name, component in components.components(own).items()
        if processes.running(own.pid_file(name)) is None or not component.healthy()
    ]


def down() -> bool:
    """End this machine's own cluster and remove all it left; whether there was one. Another one is left alone."""
    _check_rights()
    with _alone():
        there = machine.state().exists()
        _end()
        return there


def _repair(own: Machine) -> None:
    components.write_settings(own)
    processes.make_group()
    machine.make_bridge(own)
    broken = unhealthy(own)
    for name in broken:
        processes.stop(own.pid_file(name))
    # Those that wait for nothing but their own start are started at once.
    for name in ("etcd", "registry", "private-registry", "containerd"):
        if name in broken:
            processes.start(components.components(own)[name].command, own.pid_file(name), own.log(name))
    for name in components.components(own):
        if name in broken:
            _start(own, name)
        if name == "registry":
            components.push_pause(own)
        if name == "kube-apiserver":
            components.write_kubeconfigs(own)
    cluster = _cluster(own)
    if broken:
        cluster.wait("the node to be ready", lambda: _ready(cluster), _PATIENCE)


def _start(own: Machine, name: str) -> None:
    component = components.components(own)[name]
    if processes.running(own.pid_file(name)) is None:
        processes.start(component.command, own.pid_file(name), own.log(name))
    end = time.monotonic() + _PATIENCE
    while not component.healthy():
        alive = processes.running(own.pid_file(name))
        if alive is None or time.monotonic() > end:
            said = own.log(name).read_text(errors="replace")[-1500:]
            raise ClusterError(f"{name} {'does not answer' if alive else 'has ended'}: {said}")
        time.sleep(0.1)


def _ready(cluster: Cluster) -> bool:
    nodes = cluster.get("nodes")["items"]
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for node in nodes
        for condition in node["status"].get("conditions", [])
    )


def _end() -> None:
    # The kubelet would start anew what is killed.
    if machine.state().exists():
        for name in ("kubelet", "containerd"):
            processes.stop(machine.state() / "pids" / name)
    processes.end_group()
    machine.clear()


def _cluster(own: Machine) -> Cluster:
    return Cluster(own.kubeconfig, own.registry, own.private_registry, machine.NODE, own)


def _outside() -> Path | None:
    """The configuration of a cluster that is not this machine's own."""
    named = os.environ.get("KUBECONFIG", "")
    if not named or Path(named).absolute() == machine.state() / "kubeconfig":
        return None
    if not Path(named).is_file():
        raise ClusterError(f"KUBECONFIG is {named}, which is no file")
    return Path(named).absolute()


def _found(kubeconfig: Path) -> Cluster:
    registry = os.environ.get("KITOPS_TESTS_REGISTRY", "")
    private = os.environ.get("KITOPS_TESTS_PRIVATE_REGISTRY", "")
    nodes = Cluster(kubeconfig, registry, private, "").get("nodes")["items"]
    if not nodes:
        raise ClusterError(f"The cluster of {kubeconfig} has no node")
    return Cluster(kubeconfig, registry, private, nodes[0]["metadata"]["name"])


def _kubectl(own: Machine | None) -> str:
    if own:
        return str(own.binaries / "kubectl")
    return shutil.which("kubectl") or str(binaries.build(["kubectl"]) / "kubectl")


def _check_rights() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("needs Linux and root to start a cluster, or KUBECONFIG to name one")


def _check_machine() -> None:
    _check_rights()
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise Unavailable(f"needs Debian's {' '.join(sorted(missing))} to start a cluster, or KUBECONFIG to name one")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time starts and ends things."""
    lock = machine.state().with_name("cluster.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
