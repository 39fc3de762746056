"""The programs of the cluster: their settings, how each is started, and how it is seen to work."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import ssl
import subprocess
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster import tiny_image
from tests.cluster.machine import BRIDGE, LOOPBACK, NETWORK, NODE, Machine
from tests.cluster.processes import GROUP
from tests.registry import PASSWORD, USERNAME

# Seconds. A node whose kubelet is gone is given up after these; the kubelet renews its lease four times as often.
NODE_GRACE = 12
_LEASE = 10


@dataclass(frozen=True)
class Component:
    """A program of the cluster.

    :param command: program and arguments.
    :param healthy: whether it answers.
    """

    command: list[str]
    healthy: Callable[[], bool]


def components(machine: Machine) -> Mapping[str, Component]:
    """The programs by name, in the order they are started in."""
    config, address = machine.root / "config", machine.address
    return {
        "etcd": Component(
            [
                "etcd",
                f"--data-dir={machine.root / 'etcd'}",
                f"--listen-client-urls=http://{LOOPBACK}:2379",
                f"--advertise-client-urls=http://{LOOPBACK}:2379",
                f"--listen-peer-urls=http://{LOOPBACK}:2380",
                f"--initial-advertise-peer-urls=http://{LOOPBACK}:2380",
                f"--initial-cluster=default=http://{LOOPBACK}:2380",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            lambda: _answers(f"http://{LOOPBACK}:2379/health"),
        ),
        "registry": Component(
            ["docker-registry", "serve", str(config / "registry.json")],
            lambda: _answers(f"http://{machine.registry}/v2/"),
        ),
        "private-registry": Component(
            ["docker-registry", "serve", str(config / "private-registry.json")],
            lambda: _answers(f"http://{machine.private_registry}/v2/", status=401),
        ),
        "kube-apiserver": Component(
            [
                str(machine.binaries / "kube-apiserver"),
                f"--etcd-servers=http://{LOOPBACK}:2379",
                f"--bind-address={address}",
                f"--advertise-address={address}",
                f"--cert-dir={machine.root / 'certificates'}",
                f"--token-auth-file={config / 'tokens.csv'}",
                "--authorization-mode=Node,RBAC",
                f"--service-account-key-file={config / 'service-accounts.key'}",
                f"--service-account-signing-key-file={config / 'service-accounts.key'}",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                "--service-cluster-ip-range=10.83.0.0/24",
                "--endpoint-reconciler-type=none",
                "--kubelet-preferred-address-types=InternalIP",  # else logs are asked for at the node's name
                "--allow-privileged",
                "--profiling=false",
            ],
            lambda: _answers(f"{machine.server}/readyz"),
        ),
        "kube-controller-manager": Component(
            [
                str(machine.binaries / "kube-controller-manager"),
                f"--kubeconfig={machine.kubeconfig}",
                f"--bind-address={address}",
                f"--cert-dir={machine.root / 'certificates'}",
                f"--service-account-private-key-file={config / 'service-accounts.key'}",
                f"--root-ca-file={machine.root / 'certificates/apiserver.crt'}",
                "--leader-elect=false",
                "--controllers=*,-cloud-node-lifecycle-controller,-service-lb-controller,-node-route-controller",
                f"--node-monitor-grace-period={NODE_GRACE}s",
                "--node-monitor-period=2s",
                "--profiling=false",
            ],
            lambda: _answers(f"https://{address}:10257/healthz"),
        ),
        "kube-scheduler": Component(
            [
                str(machine.binaries / "kube-scheduler"),
                f"--kubeconfig={machine.kubeconfig}",
                f"--bind-address={address}",
                f"--cert-dir={machine.root / 'certificates'}",
                "--leader-elect=false",
                "--profiling=false",
            ],
            lambda: _answers(f"https://{address}:10259/healthz"),
        ),
        "containerd": Component(
            ["containerd", f"--config={config / 'containerd.toml'}"],
            lambda: _containerd_answers(machine),
        ),
        "kubelet": Component(
            [
                str(machine.binaries / "kubelet"),
                f"--kubeconfig={config / 'kubelet.kubeconfig'}",
                f"--config={config / 'kubelet.json'}",
                f"--root-dir={machine.root / 'kubelet'}",
                f"--cert-dir={machine.root / 'certificates'}",
                f"--node-ip={address}",
                f"--hostname-override={NODE}",
            ],
            lambda: _answers(f"http://{address}:10248/healthz"),
        ),
    }


def write_settings(machine: Machine) -> None:
    """Write the files that the programs read; they are the same ones as long as the cluster is."""
    config = machine.root / "config"
    if (config / "complete").exists():
        return
    config.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (config / "service-accounts.key").write_bytes(key)
    administrator, kubelet = secrets.token_hex(16), secrets.token_hex(16)
    (config / "tokens.csv").write_text(
        f"{administrator},kitops-tests,kitops-tests,system:masters\n"
        f"{kubelet},system:node:{NODE},system:node:{NODE},system:nodes\n"
    )
    _write(config / "kubelet.json", _kubelet(machine))
    (config / "containerd.toml").write_text(_containerd(machine))
    _write(config / "cni/10-kitops.conflist", _network(machine))
    for registry in (machine.registry, machine.private_registry):
        _mirror(config, registry, registry)
    # Every other registry's images are looked for in the cluster's own, and nowhere else.
    _mirror(config, "_default", machine.registry)
    passwords = subprocess.run(["htpasswd", "-niB", USERNAME], input=PASSWORD.encode(), capture_output=True, check=True)
    (config / "htpasswd").write_bytes(passwords.stdout)
    _write(config / "registry.json", _registry(machine.registry, machine.root / "registry"))
    private = _registry(machine.private_registry, machine.root / "private-registry")
    private["auth"] = {"htpasswd": {"realm": "tests", "path": str(config / "htpasswd")}}
    _write(config / "private-registry.json", private)
    (config / "complete").touch()


def write_kubeconfigs(machine: Machine) -> None:
    """Write how the API server is reached, when it has made its certificate."""
    config = machine.root / "config"
    administrator, kubelet = (line.split(",")[0] for line in (config / "tokens.csv").read_text().splitlines())
    _write(config / "kubelet.kubeconfig", _kubeconfig(machine, kubelet))
    _write(machine.kubeconfig, _kubeconfig(machine, administrator))


def push_pause(machine: Machine) -> None:
    """Put the image of what holds a pod's namespaces open into the registry."""
    tiny_image.push(machine.registry, "pause", "1", {"/pause": machine.binaries / "pause"}, Entrypoint=["/pause"])


def _kubelet(machine: Machine) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": machine.address,
        "healthzBindAddress": machine.address,
        # The API server comes with no certificate; only this machine and its pods reach the address.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{machine.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{GROUP}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "localStorageCapacityIsolation": False,
        "featureGates": {"KubeletInUserNamespace": True},  # bears that it may not raise limits
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # never
        "maxPods": 110,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": _LEASE,
        "volumePluginDir": str(machine.root / "kubelet/volume-plugins"),
        "podLogsDir": str(machine.root / "pod-logs"),
        # There is no DNS: names fail at once, rather than when a server far away has not answered.
        "resolvConf": "/dev/null",
        "clusterDNS": [LOOPBACK],
    }


def _containerd(machine: Machine) -> str:
    root = machine.root
    return textwrap.dedent(f"""\
        version = 2
        root = "{root}/containerd"
        state = "{root}/run"
        [grpc]
          address = "{machine.socket}"
        [plugins."io.containerd.internal.v1.opt"]
          path = "{root}/containerd/opt"
        [plugins."io.containerd.grpc.v1.cri"]
          sandbox_image = "{machine.registry}/pause:1"
          restrict_oom_score_adj = true
          netns_mounts_under_state_dir = true
          [plugins."io.containerd.grpc.v1.cri".cni]
            bin_dir = "/usr/lib/cni"
            conf_dir = "{root}/config/cni"
          [plugins."io.containerd.grpc.v1.cri".registry]
            config_path = "{root}/config/registries"
          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
            runtime_type = "io.containerd.runc.v2"
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
              Root = "{root}/runc"
              SystemdCgroup = false
        """)


def _network(machine: Machine) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "dataDir": str(machine.root / "addresses"),
        "ranges": [[{"subnet": machine.network, "gateway": machine.address}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge]}


def _mirror(config: Path, host: str, registry: str) -> None:
    directory = config / "registries" / host
    directory.mkdir(parents=True, exist_ok=True)
    # The server is what is asked when none of the hosts has it, and containerd 1.6 wants to be told of a host.
    settings = f'server = "http://{registry}"\n[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    (directory / "hosts.toml").write_text(settings)


def _registry(host: str, root: Path) -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": secrets.token_hex(16)},  # uploads outlive a restart
    }


def _kubeconfig(machine: Machine, token: str) -> dict[str, object]:
    authority = base64.b64encode((machine.root / "certificates/apiserver.crt").read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NODE, "cluster": {"server": machine.server, "certificate-authority-data": authority}}],
        "users": [{"name": NODE, "user": {"token": token}}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": NODE}}],
        "current-context": NODE,
    }


def _write(file: Path, content: Mapping[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1))


def _answers(url: str, status: int = 200) -> bool:
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    )
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except (OSError, http.client.HTTPException):
        return False


def _containerd_answers(machine: Machine) -> bool:
    with contextlib.suppress(subprocess.SubprocessError):
        command = ["ctr", "--address", str(machine.socket), "--connect-timeout", "2s", "plugins", "ls"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return done.returncode == 0 and any("cri" in line and " ok" in line for line in done.stdout.splitlines())
    return False
