"""Processes that outlive who started them, and a cgroup that knows all of them, with their children.

A process is known by its id and the time it was started, since ids are used again. The cgroup is what finds the rest:
what containerd starts (shims, containers) is in it wherever it was moved to as a child, so nothing is left when all
that is in it has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

GROUP = "airflow-provider-kitops"
_MOUNTED = Path("/sys/fs/cgroup")
# A program that starts with SIGINT ignored, as background jobs of shells do, hands that on to every container.
_LAUNCH = ["setsid", "--fork", "env", "--default-signal", "sh", "-c"]
_SCRIPT = 'echo $$ > "$1" && echo $$ && log=$2 && shift 2 && exec "$@" >> "$log" 2>&1 < /dev/null'


def start(command: Sequence[str], pid_file: Path, log: Path) -> None:
    """Start a process in a session of its own; nobody has to wait for it."""
    members = _tracking() / "cgroup.procs"
    log.parent.mkdir(parents=True, exist_ok=True)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    # The cluster speaks with itself alone, and a proxy would be in its way.
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment.pop("KUBECONFIG", None)
    # The shell's end of the pipe closes when it becomes the program.
    launched = subprocess.run(
        [*_LAUNCH, _SCRIPT, "sh", str(members), str(log), *command],
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if not launched.stdout.strip():
        raise ClusterError(f"{command[0]} cannot be started: {launched.stderr.strip()}")
    pid = int(launched.stdout)
    pid_file.write_text(f"{pid} {_started(pid)}\n")


def running(pid_file: Path) -> int | None:
    """The id of the process if it runs."""
    if not pid_file.exists():
        return None
    pid, _, started = pid_file.read_text().strip().partition(" ")
    return int(pid) if started and _started(int(pid)) == started else None


def stop(pid_file: Path, with_signal: signal.Signals = signal.SIGKILL, patience: float = 30) -> None:
    """Send a process a signal, and wait until it has ended; SIGKILL is what it gets if it does not.

    :param patience: seconds.
    """
    for sent in (with_signal, signal.SIGKILL):
        if (pid := running(pid_file)) is None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
        end = time.monotonic() + patience
        while running(pid_file) and time.monotonic() < end:
            time.sleep(0.05)
    else:
        if (pid := running(pid_file)) is not None:
            raise ClusterError(f"Process {pid} does not end")
    pid_file.unlink(missing_ok=True)


def make_group() -> None:
    """Make the cgroup of the processes and of the kubelet's pods, in all hierarchies."""
    if _unified():
        controllers = "+cpu +cpuset +memory +pids"
        (_MOUNTED / GROUP / "daemons").mkdir(parents=True, exist_ok=True)
        for parent in (_MOUNTED, _MOUNTED / GROUP):
            try:
                (parent / "cgroup.subtree_control").write_text(controllers)
            except OSError as error:
                raise ClusterError(f"{parent} gives no {controllers} to its children: {error}") from error
        return
    for hierarchy in _hierarchies():
        group = hierarchy / GROUP
        group.mkdir(exist_ok=True)
        # Nothing may enter a cpuset that has no processors and no memory.
        for inherited in ("cpuset.cpus", "cpuset.mems"):
            if (group / inherited).exists():
                (group / inherited).write_text((hierarchy / inherited).read_text())


def end_group(patience: float = 30) -> None:
    """Kill all that was started, whoever started it, and remove the cgroup.

    :param patience: seconds.
    """
    end = time.monotonic() + patience
    while members := list(_members()):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise ClusterError(f"Processes {', '.join(map(str, members))} do not end")
        time.sleep(0.05)
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / GROUP, topdown=False):
            _remove(Path(directory), end)


def _remove(group: Path, end: float) -> None:
    while True:  # a cgroup stays busy for a moment after its last process
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError as error:
            if time.monotonic() > end:
                raise ClusterError(f"{group} cannot be removed: {error}") from error
        time.sleep(0.05)


def _members() -> Iterator[int]:
    top = _MOUNTED / GROUP if _unified() else _tracking()
    for directory, _, _ in os.walk(top):
        with contextlib.suppress(OSError):  # a container's, removed meanwhile
            yield from map(int, (Path(directory) / "cgroup.procs").read_text().split())


def _unified() -> bool:
    return (_MOUNTED / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    if _unified():
        return [_MOUNTED]
    # Beside those of version 1 there may be one of version 2 that only names processes; runc uses it too.
    return [path for path in sorted(_MOUNTED.iterdir()) if (path / "cgroup.procs").exists()]


def _tracking() -> Path:
    """Where processes are entered: on version 1 in the hierarchy that limits nothing by being entered."""
    return _MOUNTED / GROUP / "daemons" if _unified() else _MOUNTED / "freezer" / GROUP


def _started(pid: int) -> str:
    """When a process was started, in ticks since boot; empty if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else fields[18]
