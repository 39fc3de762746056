"""A PostgreSQL of a test's own, from Debian's ``postgresql``: for an Airflow that does many things at once."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.required import missing
from tests.registry import free_port

_USER = "postgres"  # it refuses to run as root


@contextlib.contextmanager
def run_postgres(directory: Path) -> Iterator[str]:
    """Run a server until the block ends.

    :param directory: for its files; made.
    :return: ``host:port/database`` with user, as SQLAlchemy wants it after the driver's name.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not programs:
        missing("needs Debian's postgresql, for an Airflow that runs many tasks at once")
    programs_directory = programs[-1].parent
    directory.mkdir(parents=True)
    as_user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam(_USER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        for parent in directory.parents:  # pytest's directories are for their owner only
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        as_user = ["runuser", "-u", _USER, "--"]
    data, port = directory / "data", free_port()

    def run(*command: str) -> None:
        done = subprocess.run(
            [*as_user, str(programs_directory / command[0]), *command[1:]], cwd="/", capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    run("initdb", "--pgdata", str(data), "--auth=trust", f"--username={_USER}", "--no-sync", "--encoding=UTF8")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
    try:
        run("pg_ctl", "start", f"--pgdata={data}", "--wait", f"--log={directory / 'log'}", f"--options={options}")
        yield f"{_USER}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate")
        shutil.rmtree(data)
