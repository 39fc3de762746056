"""A PostgreSQL of a test's own, from Debian's ``postgresql``: for an Airflow that does many things at once."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.required import missing
from tests.registry import free_port

_USER = "postgres"  # it refuses to run as root


@contextlib.contextmanager
def run_postgres() -> Iterator[str]:
    """Run a server until the block ends, with its files in a directory that is removed then.

    :return: ``user@host:port/database``, as SQLAlchemy wants it after the driver's name.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        missing("needs Debian's postgresql, for an Airflow that runs many tasks at once")
    # Not among pytest's directories: those are for their owner only, and every session of pytest sees to it.
    directory = Path(tempfile.mkdtemp(prefix="kitops-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam(_USER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", _USER, "--"]
    data, port = directory / "data", free_port()

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(found[-1].with_name(program)), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    try:
        run("initdb", "--pgdata", str(data), "--auth=trust", f"--username={_USER}", "--no-sync", "--encoding=UTF8")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        run("pg_ctl", "start", f"--pgdata={data}", "--wait", f"--log={directory / 'log'}", f"--options={options}")
        try:
            yield f"{_USER}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate")
    finally:
        shutil.rmtree(directory)
