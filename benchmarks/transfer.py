"""How fast transfer is, as ratios to peers and to the floor of the same machine in the same run.

    python -m benchmarks.transfer [--directory DIR] [--size MIB] [--layers N] [--rounds N] [--kit PATH]

push:    ``modelkit pack`` of a folder with one large file straight into docker-registry, against one plain PUT of the
         ready bytes (the floor), and against the peers that are found: ``kit pack`` and ``kit push`` of the same
         folder, skopeo, oras and oras-py.
unpack:  ``modelkit unpack`` from the registry, verified, against a plain GET to disk and hashing the file.
small:   pushing a ModelKit of many small layers from the local layout, and pulling it back, against the same number of
         bare requests over as many connections.
again:   pushing what is there already: bytes of blobs sent.

Each round runs all sides one after the other, each in a process of its own against a registry that is empty, so start
and imports count and a change of the machine's speed hits all; the medians of the rounds' ratios are printed, with the
fastest and the slowest. Peak memory is that of the process (``ru_maxrss``).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figures
from tests.registry import Registry, run_registry

CONNECTIONS = 5
KITFILE = "manifestVersion: 1.0.0\npackage:\n  name: bench\nmodel:\n  name: weights\n  path: model\n"
PUT = """
import os, sys, requests
url, path, digest = sys.argv[1:]
session = requests.Session()
place = session.post(url + "/v2/bench/plain/blobs/uploads/").headers["Location"]
with open(path, "rb") as file:
    session.put(place + "&digest=" + digest, data=file,
        headers={"Content-Type": "application/octet-stream"}).raise_for_status()
"""
ORAS_PY = """
import sys, oras.client
oras.client.OrasClient(insecure=True).push(files=[sys.argv[2]], target=sys.argv[1])
"""
GET = """
import sys, requests
with requests.get(sys.argv[1], stream=True) as answer, open(sys.argv[2], "wb") as file:
    answer.raise_for_status()
    while data := answer.raw.read(1 << 20):
        file.write(data)
"""
HASH = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    hashlib.file_digest(file, "sha256")
"""
# What a push of small blobs cannot do without: HEAD, POST and PUT for each.
MANY = """
import hashlib, sys, threading, requests
from concurrent.futures import ThreadPoolExecutor
url, directory, connections = sys.argv[1], sys.argv[2], int(sys.argv[3])
import pathlib
local = threading.local()
def one(path):
    session = getattr(local, "session", None)
    if session is None:
        session = local.session = requests.Session()
    data = path.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    session.head(url + "/v2/bench/bare/blobs/" + digest)
    place = session.post(url + "/v2/bench/bare/blobs/uploads/").headers["Location"]
    session.put(place + "&digest=" + digest, data=data).raise_for_status()
with ThreadPoolExecutor(connections) as pool:
    list(pool.map(one, sorted(pathlib.Path(directory).glob("*"))))
"""
MANY_BACK = """
import sys, threading, requests
from concurrent.futures import ThreadPoolExecutor
url, digests, out, connections = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
import pathlib
local = threading.local()
def one(digest):
    session = getattr(local, "session", None)
    if session is None:
        session = local.session = requests.Session()
    answer = session.get(url + "/v2/bench/small/blobs/" + digest)
    answer.raise_for_status()
    pathlib.Path(out, digest[7:]).write_bytes(answer.content)
with ThreadPoolExecutor(connections) as pool:
    list(pool.map(one, pathlib.Path(digests).read_text().split()))
"""


@dataclass(frozen=True)
class Run:
    """One process: its wall time, peak memory and output."""

    seconds: float
    mib: int
    out: str


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Run:
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, error = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:200]} ended with {process.returncode}: {error[-2000:]}")
    return Run(seconds, usage.ru_maxrss // 1024, out)


def python(code: str, *arguments: str | Path) -> Run:
    return run(sys.executable, "-c", code, *arguments)


def modelkit(*arguments: str | Path, layout: Path | None = None) -> Run:
    env = {**os.environ, "MODELKIT_LAYOUT": str(layout)} if layout else None
    return run(
        sys.executable, "-m", "airflow_provider_kitops", *arguments, "--plain-http", "--json", "--quiet", env=env
    )


@contextmanager
def empty_registry(root: Path) -> Iterator[Registry]:
    directory = Path(tempfile.mkdtemp(dir=root))
    with run_registry(directory) as running:
        yield running
    shutil.rmtree(directory)


def large(root: Path, options: argparse.Namespace, figures: Figures) -> None:
    """One large file, there and back."""
    context = root / "context"
    file = context / "model/weights.bin"
    file.parent.mkdir(parents=True)
    (context / "Kitfile").write_text(KITFILE)
    chance = random.Random(0)
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(options.size):
            block = chance.randbytes(1 << 20)
            digest.update(block)
            out.write(block)
    name = f"sha256:{digest.hexdigest()}"
    layout = root / "large-layout"
    modelkit("pack", context, "-t", "bench/model:v1", layout=layout)
    pushes, puts, unpacks, gets = [], [], [], []
    peers: dict[str, list[Run]] = {peer: [] for peer in options.peers}
    memory = {"push": 0, "unpack": 0}
    for _ in range(options.rounds):
        with empty_registry(root) as registry:
            puts.append(python(PUT, registry.url, file, name).seconds)
            url = f"{registry.url}/v2/bench/plain/blobs/{name}"
            copy = root / "copy"
            gets.append(python(GET, url, copy).seconds + python(HASH, copy).seconds)
            copy.unlink()
        with empty_registry(root) as registry:
            reference = f"{registry.host}/bench/model:v1"
            pushed = modelkit("pack", context, "-t", reference)
            pushes.append(pushed.seconds)
            out_directory = root / "out"
            unpacked = modelkit("unpack", reference, "-d", out_directory)
            unpacks.append(unpacked.seconds)
            shutil.rmtree(out_directory)
        memory = {"push": max(memory["push"], pushed.mib), "unpack": max(memory["unpack"], unpacked.mib)}
        for peer, found in peers.items():
            with empty_registry(root) as registry:
                found.append(PEERS[peer](options, root, context, layout, registry.host))
    figures.ratio("folder to registry / one plain PUT", 1.15, list(zip(pushes, puts, strict=True)))
    for peer, found in peers.items():
        limit = 0.85 if peer == "kit" else None
        seconds = [each.seconds for each in found]
        figures.ratio(f"folder to registry / {LABELS[peer]}", limit, list(zip(pushes, seconds, strict=True)))
        if peer == "kit":
            figures.ratio("one plain PUT (the floor) / the same", None, list(zip(puts, seconds, strict=True)))
        figures.value(f"peak memory of {LABELS[peer]}", max(each.mib for each in found), "MiB")
    figures.ratio("unpack, verified / plain GET to disk + sha256", 1.1, list(zip(unpacks, gets, strict=True)))
    figures.value("peak memory of folder to registry", memory["push"], "MiB")
    figures.value("peak memory of unpack from registry", memory["unpack"], "MiB")


def _kit(options: argparse.Namespace, root: Path, context: Path, layout: Path, host: str) -> Run:
    home = Path(tempfile.mkdtemp(dir=root))
    env = {**os.environ, "KITOPS_HOME": str(home)}
    reference = f"{host}/bench/kit:v1"
    packed = run(options.kit, "pack", context, "-t", reference, env=env)
    pushed = run(options.kit, "push", reference, "--plain-http", env=env)
    shutil.rmtree(home)
    return Run(packed.seconds + pushed.seconds, max(packed.mib, pushed.mib), pushed.out)


def _skopeo(options: argparse.Namespace, root: Path, context: Path, layout: Path, host: str) -> Run:
    source = f"oci:{layout}/bench/model:v1"
    return run("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{host}/bench/skopeo:v1")


def _oras(options: argparse.Namespace, root: Path, context: Path, layout: Path, host: str) -> Run:
    return run("oras", "push", "--plain-http", f"{host}/bench/oras:v1", "model/weights.bin", cwd=context)


def _oras_py(options: argparse.Namespace, root: Path, context: Path, layout: Path, host: str) -> Run:
    return run(sys.executable, "-c", ORAS_PY, f"{host}/bench/oras-py:v1", "model/weights.bin", cwd=context)


PEERS = {"kit": _kit, "skopeo": _skopeo, "oras": _oras, "oras-py": _oras_py}
# skopeo only copies what is packed already.
LABELS = {
    "kit": "kit pack + kit push",
    "skopeo": "skopeo copy of the packed",
    "oras": "oras push",
    "oras-py": "oras-py push",
}


def found_peers(options: argparse.Namespace) -> dict[str, str]:
    """The peers that are on this machine, and what they say of their version."""
    found = {}
    if options.kit:
        found["kit"] = run(options.kit, "version").out.split("\n")[0].removeprefix("Version: ").strip()
    for program, flag in (("skopeo", "--version"), ("oras", "version")):
        if shutil.which(program):
            found[program] = run(program, flag).out.split("\n")[0].split()[-1]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["oras-py"] = importlib.metadata.version("oras")
    return found


def small(root: Path, options: argparse.Namespace, figures: Figures) -> None:
    """Many small layers, there and back."""
    context, blobs, layout = root / "small", root / "blobs", root / "layout"
    context.mkdir()
    blobs.mkdir()
    chance = random.Random(1)
    lines = ["manifestVersion: 1.0.0", "code:"]
    for number in range(options.layers):
        data = chance.randbytes(2000)
        (context / f"part-{number:05}").write_bytes(data)
        (blobs / f"part-{number:05}").write_bytes(data)
        lines.append(f"  - path: part-{number:05}")
    (context / "Kitfile").write_text("\n".join(lines) + "\n")
    modelkit("pack", context, "-t", "bench/small:v1", layout=layout)
    pushes, bare, pulls, bare_back, again = [], [], [], [], -1
    for _ in range(options.rounds):
        with empty_registry(root) as registry:
            bare.append(python(MANY, registry.url, blobs, str(CONNECTIONS)).seconds)
        with empty_registry(root) as registry:
            reference = f"{registry.host}/bench/small:v1"
            pushes.append(modelkit("push", "bench/small:v1", reference, layout=layout).seconds)
            repeated = json.loads(modelkit("push", "bench/small:v1", reference, layout=layout).out)
            again = max(again, repeated["copied"])
            manifest = json.loads(modelkit("inspect", reference).out)["manifest"]
            digests = root / "digests"
            digests.write_text(" ".join(layer["digest"] for layer in manifest["layers"]))
            there = Path(tempfile.mkdtemp(dir=root))
            bare_back.append(python(MANY_BACK, registry.url, digests, there, str(CONNECTIONS)).seconds)
            pulls.append(modelkit("pull", reference, layout=there / "layout").seconds)
            shutil.rmtree(there)
    figures.ratio(f"push of {options.layers} small layers / bare requests", None, list(zip(pushes, bare, strict=True)))
    figures.ratio(f"pull of {options.layers} small layers / bare GETs", None, list(zip(pulls, bare_back, strict=True)))
    figures.value("bytes sent when the same is pushed again", again, "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--directory", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--layers", type=int, default=1000, help="how many small layers; 0 = leave them out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kit", default=shutil.which("kit"), help="kit (default: the one in PATH, if there is one)")
    options = parser.parse_args()
    figures = Figures()
    options.peers = found_peers(options)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        large(Path(directory), options, figures)
        if options.layers:
            small(Path(directory), options, figures)
    about = {"cores": os.cpu_count(), "size_mib": options.size, "layers": options.layers, "peers": options.peers}
    print(json.dumps({**about, "results": figures.results}))


if __name__ == "__main__":
    main()
