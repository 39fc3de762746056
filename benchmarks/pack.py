"""How fast packing is, as ratios to the floor of the same machine in the same run.

    python -m benchmarks.pack [--directory DIR] [--size MIB] [--files N] [--rounds N]

One file:   the digest alone (``pack`` without a target) against sha256 of the file, and packing into a local layout
            against sha256 plus a copy with fsync.
Many files: the digest alone against ``tar c | sha256sum``.

Each round runs both sides one after the other in processes of their own, so that start and imports count and a change
of the machine's speed hits both; the medians of the rounds' ratios are printed, with the fastest and the slowest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figures

PACK = """
import resource, sys
from pathlib import Path
from airflow_provider_kitops.modelkit.kitfile import Kitfile, Model
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.layout import Layout
context, layout = Path(sys.argv[1]), sys.argv[2]
target = Layout(Path(layout), "bench/model") if layout else None
pack(context, Kitfile(model=Model(path="model")), target)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
HASH = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    hashlib.file_digest(file, "sha256")
"""
COPY = """
import os, sys
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as copy:
    while data := source.read(1 << 20):
        copy.write(data)
    copy.flush()
    os.fsync(copy.fileno())
"""


def timed(*command: str | Path) -> tuple[float, str]:
    """Seconds of a process, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begun, done.stdout.strip()


def python(code: str, *arguments: str | Path) -> tuple[float, str]:
    return timed(sys.executable, "-c", code, *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--directory", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the one file")
    parser.add_argument("--files", type=int, default=20_000, help="how many small files")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        figures = measure(Path(directory), options)
    about = {"cores": os.cpu_count(), "size_mib": options.size, "files": options.files}
    print(json.dumps({**about, "results": figures.results}))


def measure(root: Path, options: argparse.Namespace) -> Figures:
    one, many = root / "one", root / "many"
    file = one / "model/weights.bin"
    file.parent.mkdir(parents=True)
    chance = random.Random(0)
    block = chance.randbytes(1 << 20)
    with file.open("wb") as out:
        for _ in range(options.size):
            out.write(block)
    for number in range(options.files):
        place = many / f"model/directory-{number // 1000:03}/file-{number:06}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(block[: chance.randrange(7000)])
    memory = 0

    def packed(context: Path, layout: Path | str = "") -> float:
        nonlocal memory
        seconds, said = python(PACK, context, layout)
        memory = max(memory, int(said))
        return seconds

    def into_layout() -> float:
        layout = Path(tempfile.mkdtemp(dir=root))
        seconds = packed(one, layout)
        subprocess.run(["rm", "-rf", str(layout)], check=True)
        return seconds

    def hashed_and_copied() -> float:
        copy = root / "copy"
        seconds = python(HASH, file)[0] + python(COPY, file, copy)[0]
        copy.unlink()
        return seconds

    figures = Figures()

    def compare(name: str, limit: float, ours: Callable[[], float], floor: Callable[[], float]) -> None:
        figures.ratio(name, limit, [(ours(), floor()) for _ in range(options.rounds)])

    compare("digest of one file / sha256", 1.15, lambda: packed(one), lambda: python(HASH, file)[0])
    compare("into the layout / sha256 + copy", 2.0, into_layout, hashed_and_copied)
    command = ("sh", "-c", f"tar -C {many} -c model | sha256sum")
    compare("digest of many files / tar c | sha256sum", 3.0, lambda: packed(many), lambda: timed(*command)[0])
    figures.value("peak memory of packing", memory, "MiB")
    return figures


if __name__ == "__main__":
    main()
