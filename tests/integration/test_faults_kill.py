"""Processes that are killed at any moment, and many of them in one layout.

``KITOPS_TESTS_SECONDS`` is how long many processes work in one layout (20), ``KITOPS_TESTS_SEED`` makes a run the same
as an earlier one, as far as times can be the same.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from airflow_provider_kitops.cli import main
from airflow_provider_kitops.modelkit._paths import STAGE_MARK
from tests.registry import Registry
from tests.registry_checks import assert_layout_whole, assert_registry_whole

KILLS = 20
SECONDS = float(os.environ.get("KITOPS_TESTS_SECONDS", "20"))
SEED = int(os.environ.get("KITOPS_TESTS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
PARTS = ("model.bin", "data.bin", "notes.txt")
KITFILE = """\
manifestVersion: 1.0.0
package: {name: demo}
model: {name: model, path: model.bin}
datasets: [{name: data, path: data.bin}]
docs: [{path: notes.txt}]
"""

# Children are forked from a process that has everything loaded: kills hit the work, not the start of Python.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["airflow_provider_kitops.cli", "airflow_provider_kitops.oci.store", __name__])


def run(arguments: list[str], log: str = "") -> None:
    """In a child: one command of ``modelkit``; its exit code is that of the process."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(arguments)
    if code and log:
        Path(log).write_text(said.getvalue())
    raise SystemExit(code)


def start(arguments: list[str], log: str = "") -> BaseProcess:
    process = processes.Process(target=run, args=(arguments, log))
    process.start()
    return process


def write_context(directory: Path, seed: int, size: int) -> dict[str, bytes]:
    """A context directory; its files."""
    directory.mkdir(parents=True)
    numbers = random.Random(seed)
    files = {"model.bin": numbers.randbytes(size), "data.bin": numbers.randbytes(size // 2), "notes.txt": b"%d" % seed}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / "Kitfile").write_text(KITFILE)
    return files


class Work:
    """One command that is killed and then run again, each time somewhere else.

    :param command: its arguments the n-th time.
    :param check: what must hold after the kill, or after the end.
    """

    def __init__(
        self, command: Callable[[int], list[str]], check: Callable[[int, bool], None], directory: Path
    ) -> None:
        self.command = command
        self.check = check
        self.log = directory / "said"

    def finish(self, number: int) -> float:
        """Run it to its end; the seconds that it took."""
        before = time.monotonic()
        process = start(self.command(number), str(self.log))
        process.join(60)
        assert process.exitcode == 0, self.log.read_text() if self.log.exists() else process.exitcode
        taken = time.monotonic() - before
        self.check(number, True)
        return taken

    def survive(self) -> None:
        """Kill it at random moments and run it again."""
        numbers = random.Random(SEED)
        self.finish(0)
        whole = self.finish(KILLS + 1)
        killed = 0
        for number in range(1, KILLS + 1):
            moment = numbers.uniform(0, whole)
            process = start(self.command(number))
            time.sleep(moment)
            process.kill()
            process.join(60)
            if process.exitcode == 0:
                whole = min(whole, moment)  # it was measured while the machine was busier
            else:
                killed += 1
            print(f"seed {SEED}, kill {number} after {moment * 1000:.0f} ms: exit code {process.exitcode}")
            self.check(number, False)
            self.finish(number)
        assert killed > KILLS // 4, "most were done before they were killed"


@pytest.fixture
def context(tmp_path: Path) -> dict[str, bytes]:
    return write_context(tmp_path / "context", 1, 8_000_000)


@pytest.fixture
def digest(tmp_path: Path, context: dict[str, bytes]) -> str:
    """Of the ModelKit ``source:v1`` in the layout."""
    layout = str(tmp_path / "layout")
    process = start(["pack", str(tmp_path / "context"), "-t", "source:v1", "--layout", layout])
    process.join(60)
    return assert_layout_whole(tmp_path / "layout/source")["v1"]


def into_registry(
    tmp_path: Path, registry: Registry, digest: str, command: Callable[[str], list[str]], verb: str
) -> None:
    def where(number: int) -> str:
        return f"kill/{verb}/{tmp_path.name.replace('_', '-')}/{number}".lower()

    def check(number: int, done: bool) -> None:
        found = assert_registry_whole(registry, where(number))
        assert found == {"v1": digest} if done else found in ({}, {"v1": digest})

    begun: set[int] = set()

    def arguments(number: int) -> list[str]:
        if number not in begun and not registry.full:
            # Where every repository has the blobs of all, nothing would have to be sent the second time.
            shutil.rmtree(registry.root / "sha256", ignore_errors=True)
        begun.add(number)
        return [*command(f"{registry.host}/{where(number)}:v1"), "--plain-http", "--layout", str(tmp_path / "layout")]

    Work(arguments, check, tmp_path).survive()


def test_a_push_may_be_killed(tmp_path: Path, open_registry: Registry, digest: str) -> None:
    into_registry(tmp_path, open_registry, digest, lambda there: ["push", "source:v1", there], "push")


def test_a_pack_into_a_registry_may_be_killed(tmp_path: Path, open_registry: Registry, digest: str) -> None:
    context = str(tmp_path / "context")
    into_registry(tmp_path, open_registry, digest, lambda there: ["pack", context, "-t", there], "pack")


def test_a_copy_between_registries_may_be_killed(
    tmp_path: Path, registry: Registry, referrers_registry: Registry, digest: str
) -> None:
    source = f"{referrers_registry.host}/copy/source:v1"
    push = start(["push", "source:v1", source, "--plain-http", "--layout", str(tmp_path / "layout")])
    push.join(60)
    into_registry(tmp_path, registry, digest, lambda there: ["copy", source, there], "copy")


def test_a_pull_may_be_killed(tmp_path: Path, open_registry: Registry) -> None:
    source = f"{open_registry.host}/pull/source:v1"
    layout = ["--plain-http", "--layout", str(tmp_path / "layout")]
    # So large that what was there is not thrown away.
    write_context(tmp_path / "context", 1, 20_000_000)
    pack = start(["pack", str(tmp_path / "context"), "-t", source, *layout])
    pack.join(60)
    digest = assert_registry_whole(open_registry, "pull/source")["v1"]

    def check(number: int, done: bool) -> None:
        found = assert_layout_whole(tmp_path / f"layout/pulled/{number}")
        assert found == {"v1": digest} if done else found in ({}, {"v1": digest})
        if done:
            assert not list((tmp_path / f"layout/pulled/{number}/.ingest").glob("*.part"))

    Work(lambda number: ["pull", source, f"pulled/{number}:v1", *layout], check, tmp_path).survive()


def test_an_unpack_over_an_old_tree_may_be_killed(tmp_path: Path, digest: str, context: dict[str, bytes]) -> None:
    old: list[dict[str, bytes]] = []

    def command(number: int) -> list[str]:
        place = tmp_path / f"out/{number}"
        if not place.exists():
            old.append(write_context(place, 2, 1_000_000))
        return ["unpack", f"source@{digest}", "-d", str(place), "-o", "--layout", str(tmp_path / "layout")]

    def check(number: int, done: bool) -> None:
        found = {name: (tmp_path / f"out/{number}" / name).read_bytes() for name in PARTS if not done}
        assert all(content in (context[name], old[0][name]) for name, content in found.items())
        if done:
            assert {name: (tmp_path / f"out/{number}" / name).read_bytes() for name in PARTS} == context
            # Nothing is left beside the place either, but the empty directory of who was killed before it had its
            # lock: that is left alone for a minute.
            left = sorted(path.name for path in (tmp_path / f"out/{number}").iterdir() if not just_made(path))
            assert left == ["Kitfile", *sorted(PARTS)]
            assert not [path.name for path in (tmp_path / "out").iterdir() if not path.name.isdigit()]

    Work(command, check, tmp_path).survive()


def just_made(path: Path) -> bool:
    """Whether it is a stage that its process had not locked yet, or had emptied."""
    return path.name.startswith(STAGE_MARK) and {each.name for each in path.iterdir()} <= {"lock.new"}


def crowd(directory: str, remote: str, seed: int, until: float) -> None:
    """In a child: pack, pull, tag and delete in one layout, until the time has come."""
    numbers = random.Random(seed)
    layout = ["--layout", f"{directory}/layout", "--quiet"]
    for turn in itertools.count():
        if time.time() > until:
            return
        context = f"{directory}/contexts/{numbers.randrange(4)}"
        tag = f"t{numbers.randrange(6)}"
        command = numbers.choice(
            [
                ["pack", context, "-t", f"crowd:own-{seed}-{turn}"],
                ["pack", context, "-t", "crowd:latest"],
                ["pull", f"{remote}:v{numbers.randrange(4)}", f"crowd:{tag}", "--plain-http", "--mutable-tags", "t*"],
                ["remove", f"crowd:{tag}"],
                ["remove", "crowd:latest"],
                ["copy", "crowd:latest", f"crowd:{tag}", "--mutable-tags", "t*"],
            ]
        )
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = main([*command, *layout])
        with Path(f"{directory}/codes").open("a") as file:
            file.write(f"{command[0]}:{code}\n")
        # Not there any more, or deleted by another meanwhile: anything else is a bug.
        if code not in (0, 3, 5):
            with Path(f"{directory}/bugs").open("a") as file:
                file.write(f"{code}: {command[0]}: {said.getvalue()}\n")


def test_sixteen_processes_in_one_layout_some_of_them_killed(tmp_path: Path, registry: Registry) -> None:
    remote = f"{registry.host}/crowd/{tmp_path.name.replace('_', '-')}".lower()
    for number in range(4):
        write_context(tmp_path / f"contexts/{number}", number, 200_000)
        pushed = start(["pack", str(tmp_path / f"contexts/{number}"), "-t", f"{remote}:v{number}", "--plain-http"])
        pushed.join(60)
        assert pushed.exitcode == 0
    print(f"seed {SEED}")
    numbers = random.Random(SEED)
    until = time.time() + SECONDS
    seeds = itertools.count(SEED)

    def another() -> BaseProcess:
        process = processes.Process(target=crowd, args=(str(tmp_path), remote, next(seeds), until))
        process.start()
        return process

    running = [another() for _ in range(16)]
    killed = 0
    while time.time() < until:
        time.sleep(numbers.uniform(0.1, 0.5))
        place = numbers.randrange(16)
        running[place].kill()
        running[place].join(30)
        killed += 1
        running[place] = another()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    print(f"killed {killed}")
    assert killed > 10
    bugs = tmp_path / "bugs"
    assert not bugs.exists(), bugs.read_text()
    codes = Counter((tmp_path / "codes").read_text().split())
    print(dict(codes))
    assert all(codes[f"{verb}:0"] > 3 for verb in ("pack", "pull", "remove", "copy")), codes
    assert assert_layout_whole(tmp_path / "layout/crowd")
    context = str(tmp_path / "contexts/0")
    again = start(["pack", context, "-t", "crowd:afterwards", "--layout", str(tmp_path / "layout")])
    again.join(60)
    assert again.exitcode == 0
    assert "afterwards" in assert_layout_whole(tmp_path / "layout/crowd")
