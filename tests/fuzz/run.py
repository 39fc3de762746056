"""Coverage-guided fuzzing of everything that reads bytes from outside.

    pip install atheris
    python tests/fuzz/run.py tar -max_total_time=900 -artifact_prefix=/tmp/

A target may raise the project's own errors, and nothing else; what it raises beside them is written to a file that
belongs into ``tests/fuzz/cases/TARGET`` once it is mended. ``tests/unit/modelkit/test_fuzz.py`` runs these.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

instrumented: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
if __name__ == "__main__":
    import atheris

    instrumented = atheris.instrument_imports(include=["airflow_provider_kitops"])

with instrumented:
    from airflow_provider_kitops.modelkit import (
        _compression,
        _document,
        _sparse,
        _untar,
        ignore,
        index,
        kitfile,
        modelpack,
    )
    from airflow_provider_kitops.modelkit.limits import Budget, Limits
    from airflow_provider_kitops.modelkit.manifest import Manifest
    from airflow_provider_kitops.oci.errors import KitopsError

CASES = Path(__file__).parent / "cases"


def reader(data: bytes) -> Callable[[int], bytes]:
    """Gives the bytes piece by piece, as ``read`` of a stream does."""
    left = memoryview(data)

    def read(size: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:size]), left[size:]
        return piece

    return read


def tar(data: bytes) -> None:
    """What a tar stream holds; names stay below the directory and contents have their size."""
    budget = Budget(Limits(bytes=1 << 28))
    for entry, content in _untar.read_entries(reader(_with_checksums(data)), "the stream", on_holes=budget.data):
        size = sum(len(piece) for piece in content)
        assert size == entry.size
        parts = entry.name.split("/")
        assert entry.name
        assert ".." not in parts
        assert "" not in parts
        assert entry.mode == entry.mode & 0o777


def _with_checksums(data: bytes) -> bytes:
    """With right checksums in what looks like a header: no fuzzer guesses these."""
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


def sparse(data: bytes) -> None:
    """A map of a sparse file: one digit for the form, then a line with the bytes stored, then the map."""
    head, _, text = data.partition(b"\n")
    form, stored = head[:1], int(head[1:5]) if head[1:5].isdigit() else 0
    read = reader(text)
    lines = text.split(b"\n")
    one = {"GNU.sparse.size": lines[0], "GNU.sparse.map": b",".join(lines[1:])}
    one["GNU.sparse.numblocks"] = b"%d" % (len(lines) // 2)
    if form == b"0":
        found = _sparse.read_old_gnu(
            read(512).ljust(512, b"\0"), stored, lambda size: read(size).ljust(size, b"\0"), "it"
        )
    elif form == b"1":
        found = _sparse.read_pax(one, stored, read, "it")
    else:
        major = {"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"%d" % (1 << 20)}
        found = _sparse.read_pax(major, 512 * (len(text) // 512) + stored, read, "it")
    end = taken = 0
    for offset, length in zip(found.pieces[::2], found.pieces[1::2], strict=True):
        assert end <= offset
        end, taken = offset + length, taken + length
    assert end <= found.size < 1 << 63
    assert taken == found.stored
    if found.size < 1 << 22:
        assert sum(len(piece) for piece in found.content(lambda size: iter([bytes(size)]))) == found.size


def gzip(data: bytes) -> None:
    """A gzip stream gives its bytes in bounded pieces."""
    _drain(_compression.Decompressed(reader(data), "gzip", "the stream"))


def zstd(data: bytes) -> None:
    """A Zstandard stream gives its bytes in bounded pieces."""
    _drain(_compression.Decompressed(reader(data), "zstd", "the stream"))


def _drain(stream: _compression.Decompressed) -> None:
    done = 0
    while piece := stream.read(4096):
        assert len(piece) <= 4096
        done += len(piece)
        if done > 1 << 24:
            return


def document(data: bytes) -> None:
    """A Kitfile that parses renders to one that parses to the same."""
    found = kitfile.parse_kitfile(data)
    assert kitfile.parse_kitfile(found.to_yaml()) == found


def config(data: bytes) -> None:
    """A config that is read can be written."""
    found, _ = kitfile.parse_config(data)
    found.to_config_json()


def manifest(data: bytes) -> None:
    """A manifest and its layers."""
    Manifest.parse(data, "it").typed_layers("it")


def pack(data: bytes) -> None:
    """A ModelPack's manifest and config, one after the other."""
    first, _, second = data.partition(b"\n")
    modelpack.read_modelpack("it", Manifest.parse(first, "it"), second)


def indexed(data: bytes) -> None:
    """An index, and picking from it."""
    index.ModelKitIndex.parse(data, "it").pick({"a": "b"}, "it")


def ignored(data: bytes) -> None:
    """Ignore rules, asked about a path: the first line."""
    text = data.decode(errors="surrogateescape")
    path, _, rules = text.partition("\n")
    ignore.IgnoreRules(ignore.read_patterns(rules)).matches(path)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (tar, sparse, gzip, zstd, document, config, manifest, pack, indexed, ignored)
}


def run(target: str, data: bytes) -> None:
    """One input: the project's own errors are right answers."""
    with contextlib.suppress(KitopsError, _document.DocumentError):
        TARGETS[target](data)


def main() -> None:
    target = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if target not in TARGETS:
        raise SystemExit(f"Name one of {', '.join(TARGETS)}.")
    atheris.Setup(sys.argv, lambda data: run(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
