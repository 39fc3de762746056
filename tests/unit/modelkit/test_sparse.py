"""Sparse files of other tools come out whole, with their holes, and a map that makes no sense is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import pytest

from airflow_provider_kitops.modelkit import _sparse
from airflow_provider_kitops.modelkit._untar import read_entries
from airflow_provider_kitops.modelkit.diff import diff, diff_files
from airflow_provider_kitops.modelkit.kitfile import Kitfile, Model
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.unpack import Limits, unpack
from airflow_provider_kitops.oci.errors import LimitExceeded, UnsafePath, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from tests.fuzz.run import reader
from tests.unit.modelkit.conftest import push_kit, tar_of

MODEL = Kitfile(model=Model(path="w"))
MEBI = 1024 * 1024
FORMS = {
    "gnu": ["--format=gnu"],
    "pax-0.0": ["--format=posix", "--sparse-version=0.0"],
    "pax-0.1": ["--format=posix", "--sparse-version=0.1"],
    "pax-1.0": ["--format=posix", "--sparse-version=1.0"],
}
gnu_tar = pytest.mark.skipif(
    shutil.which("tar") is None or b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True).stdout,
    reason="needs GNU tar",
)

Record = tuple[str, str]
POSIX = b"ustar\x0000"


def block(name: bytes, size: int, kind: bytes, fields: bytes = b"", magic: bytes = b"ustar  \0") -> bytes:
    """A header, with ``fields`` from byte 386 on, where the map of old GNU tar is."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108] = b"0000644\0"
    head[124:136] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[257:265] = magic
    head[386 : 386 + len(fields)] = fields
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: list[Record], data: bytes, name: bytes = b"w/a", kind: bytes = b"0", header: bytes = b"x") -> bytes:
    """A tar stream of one file with an extended header of these records, however wrong they are."""
    lines = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        size = len(body) + 1
        while size != len(body) + len(str(size)):
            size += 1
        lines += str(size).encode() + body
    return (
        block(b"x", len(lines), header, magic=POSIX)
        + padded(lines)
        + block(name, len(data), kind, magic=POSIX)
        + padded(data)
        + bytes(1024)
    )


def pax_00(size: int, pieces: list[tuple[int, int]], data: bytes) -> bytes:
    records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pieces)))]
    for offset, length in pieces:
        records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(length))]
    return pax(records, data)


def pax_01(size: int, pieces: list[tuple[int, int]], data: bytes) -> bytes:
    records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pieces))), ("GNU.sparse.name", "w/a")]
    return pax([*records, ("GNU.sparse.map", ",".join(f"{offset},{length}" for offset, length in pieces))], data, b"G")


VERSION_1 = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "w/a")]


def pax_10(size: int, pieces: list[tuple[int, int]], data: bytes) -> bytes:
    lines = "".join(f"{number}\n" for number in (len(pieces), *(number for piece in pieces for number in piece)))
    return pax([*VERSION_1, ("GNU.sparse.realsize", str(size))], padded(lines.encode()) + data, b"G")


def field(number: int) -> bytes:
    return b"%011o\0" % number if number < 8**11 else b"\x80" + number.to_bytes(11, "big")


def old_gnu(size: int, pieces: list[tuple[int, int]], data: bytes) -> bytes:
    entries = [field(offset) + field(length) for offset, length in pieces]
    first, rest = entries[:4], entries[4:]
    table = b"".join(first).ljust(96, b"\0") + (b"\1" if rest else b"\0") + field(size)
    more = b""
    while rest:
        here, rest = rest[:21], rest[21:]
        more += (b"".join(here).ljust(504, b"\0") + (b"\1" if rest else b"\0")).ljust(512, b"\0")
    return block(b"w/a", len(data), b"S", table) + more + padded(data) + bytes(1024)


MAKERS = {"gnu": old_gnu, "pax-0.0": pax_00, "pax-0.1": pax_01, "pax-1.0": pax_10}
every_form = pytest.mark.parametrize("form", MAKERS)


def contents(stream: bytes, label: str = "it") -> dict[str, bytes]:
    found = {}
    for entry, content in read_entries(reader(stream), label):
        data = b"".join(content)
        assert len(data) == entry.size
        found[entry.name] = data
    return found


def holed(path: Path, size: int, pieces: dict[int, bytes]) -> bytes:
    """A file with real holes, and what it reads as."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path.read_bytes()


@gnu_tar
@pytest.mark.parametrize("form", FORMS)
def test_what_gnu_tar_packed_comes_out_with_its_holes(form: str, layout: Layout, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    long = "w/" + "n" * 120
    expected = {
        "w/middle": holed(source / "w/middle", 9 * MEBI, {0: b"start", 5 * MEBI: b"middle" * 5000, 9 * MEBI - 3: b"e"}),
        "w/empty": holed(source / "w/empty", 3 * MEBI, {}),
        "w/odd": holed(source / "w/odd", 3 * MEBI + 77, {2 * MEBI + 333: b"odd"}),
        "w/many": holed(source / "w/many", 100 * MEBI // 8, {at * 65536: bytes([at]) for at in range(150)}),
        long: holed(source / long, 2 * MEBI, {MEBI: b"long name"}),
        "w/plain": holed(source / "w/plain", 10, {0: b"0123456789"}),
    }
    made = subprocess.run(["tar", "--sparse", *FORMS[form], "-C", source, "-cf", "-", "w"], capture_output=True)
    assert not made.returncode, made.stderr
    assert len(made.stdout) < 3 * MEBI, "this file system has no holes to pack"
    kit = push_kit(layout, MODEL, [made.stdout])
    unpack(layout, kit.digest, out, ["model"])
    assert {str(path.relative_to(out)): path.read_bytes() for path in (out / "w").iterdir()} == expected
    assert sum(path.stat().st_blocks * 512 for path in (out / "w").iterdir()) < 16 * MEBI


@every_form
@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, []),
        (0, [(0, 0)]),
        (10, [(0, 10)]),
        (3 * MEBI, [(0, 5), (5, 7), (MEBI - 1, 600), (3 * MEBI, 0)]),
        (MEBI, []),
        (70_000, [(at * 700, 7) for at in range(100)]),
        (5_000_000, [(4_999_999, 1)]),
    ],
    ids=["nothing", "nothing-in-a-piece", "no-hole", "touching", "a-hole", "many", "end"],
)
def test_holes_are_zeros(form: str, size: int, pieces: list[tuple[int, int]]) -> None:
    data = os.urandom(sum(length for _, length in pieces))
    expected, at = bytearray(size), 0
    for offset, length in pieces:
        expected[offset : offset + length] = data[at : at + length]
        at += length
    assert contents(MAKERS[form](size, pieces, data)[:-1024] + tar_of(("w/next", b"1"))) == {
        "w/a": bytes(expected),
        "w/next": b"1",
    }


def test_python_reads_the_same_from_what_these_tests_make(tmp_path: Path) -> None:
    """The makers above are right, by another reader."""
    pieces = [(at * 700, 7) for at in range(100)]
    data = os.urandom(700)
    for make in MAKERS.values():
        path = tmp_path / "it.tar"
        path.write_bytes(make(70_007, pieces, data))
        with tarfile.open(path) as archive:
            extracted = archive.extractfile("w/a")
            assert extracted is not None
            assert contents(path.read_bytes()) == {"w/a": extracted.read()}


NONE = [("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "0")]
ONE = [("GNU.sparse.size", "9"), ("GNU.sparse.numblocks", "1")]
PLAIN = [*VERSION_1, ("GNU.sparse.realsize", "9")]


@every_form
@pytest.mark.parametrize(
    ("size", "pieces", "data", "reason"),
    [
        (9, [(4, 2), (0, 2)], b"1234", "out of order or overlaps"),
        (9, [(0, 4), (3, 2)], b"123456", "out of order or overlaps"),
        (9, [(0, 4), (0, 4)], b"12345678", "out of order or overlaps"),
        (9, [(8, 2)], b"12", "goes beyond its 9 bytes"),
        (9, [(10, 0)], b"", "goes beyond its 9 bytes"),
        (9, [(2**62, 2**62)], b"", "goes beyond its 9 bytes"),
        (9, [(0, 4)], b"123", "has 3 bytes stored, and the map of its holes says 4"),
        (9, [(0, 4)], b"12345", "has 5 bytes stored, and the map of its holes says 4"),
        (9, [], b"1", "has 1 bytes stored, and the map of its holes says 0"),
        (2**63, [], b"", "9223372036854775808 bytes, which no file can have"),
    ],
    ids=[
        "order", "overlap", "twice", "beyond", "empty-beyond", "far-beyond", "too-little", "too-much", "none", "size",
    ],
)  # fmt: skip
def test_a_map_that_makes_no_sense_is_refused_by_name(
    form: str, size: int, pieces: list[tuple[int, int]], data: bytes, reason: str, layout: Layout, tmp_path: Path
) -> None:
    kit = push_kit(layout, MODEL, [MAKERS[form](size, pieces, data)])
    with pytest.raises(VerificationFailed, match=f"'w/a' .*{re.escape(reason)}"):
        unpack(layout, kit.digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (pax([*NONE[:1]], b""), "'w/a' is a sparse file without GNU.sparse.numblocks"),
        (pax([*NONE[1:]], b""), "'w/a' is a sparse file without GNU.sparse.size"),
        (pax([*VERSION_1], padded(b"0\n")), "'w/a' is a sparse file without GNU.sparse.realsize"),
        (pax([("GNU.sparse.name", "w/b")], b""), "'w/b' is a sparse file without GNU.sparse.size"),
        (pax([*ONE, ("GNU.sparse.map", "0")], b""), "'w/a' .*not as many pieces as it says"),
        (pax([*ONE, ("GNU.sparse.map", "0,1,2,3")], b""), "'w/a' .*not as many pieces as it says"),
        (pax([*ONE, ("GNU.sparse.map", "0,-1")], b""), "'w/a' has b'-1' for a number"),
        (pax([*ONE, ("GNU.sparse.map", "0, 1")], b""), "'w/a' has b' 1' for a number"),
        (pax([*ONE, ("GNU.sparse.map", "0," + "9" * 20)], b""), "'w/a' has b'9{20}' for a number"),
        (pax([("GNU.sparse.size", "-9"), *NONE[1:]], b""), "'w/a' has b'-9' for a number"),
        (pax([*NONE, ("GNU.sparse.numbytes", "1")], b""), "it has a sparse file whose offsets and lengths do not"),
        (pax([*NONE, *[("GNU.sparse.offset", "1")] * 2], b""), "it has a sparse file whose offsets and lengths do not"),
        (pax([*NONE, ("GNU.sparse.offset", "0,1")], b""), "it has a sparse file whose offsets and lengths do not"),
        (pax([*NONE, ("GNU.sparse.offset", "1")], b""), "'w/a' .*not as many pieces"),
        (
            pax([*ONE, ("GNU.sparse.map", "0,1"), ("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "1")], b"1"),
            "it has a sparse file with two maps",
        ),
        (pax([*NONE, ("GNU.sparse.more", "1")], b""), "it has a sparse file with the unknown key b'GNU.sparse.more'"),
        (pax([*PLAIN, ("GNU.sparse.major", "2")], b""), "'w/a' is a sparse file of the unknown version b'2'.b'0'"),
        (pax([*PLAIN, ("GNU.sparse.minor", "7")], b""), "'w/a' is a sparse file of the unknown version b'1'.b'7'"),
        (pax(PLAIN, b""), "'w/a' has a map of its holes that does not end"),
        (pax(PLAIN, padded(b"1\n0\n")), "'w/a' has a map of its holes that does not end"),
        (pax(PLAIN, b"0" * 1024), "'w/a' has a map of its holes that does not end"),
        (pax(PLAIN, padded(b"x\n")), "'w/a' has b'x' for a number"),
        (pax(PLAIN, padded(b"\n0\n")), "'w/a' has b'' for a number"),
        (pax(PLAIN, padded(b"1\n0\n-1\n")), "'w/a' has b'-1' for a number"),
        (pax(NONE, b"", header=b"g"), "it has a header for all files that makes them sparse"),
        (pax(NONE, b"", kind=b"5"), "'w/a' is a directory and a sparse file"),
        (pax(NONE, b"", name=b"w/a/"), "'w/a/' is a directory and a sparse file"),
        (pax(NONE, b"", kind=b"S"), "'w/a' is sparse in two ways"),
        (block(b"w/a/", 0, b"S"), "'w/a/' is a directory and a sparse file"),
        (block(b"w/a", 0, b"S", magic=b"ustar\x0000"), "'w/a' is of type 'S', and its header is not one of GNU tar"),
        (
            block(b"w/a", 0, b"S", bytes(96) + b"\1" + field(9)) + bytes(2048),
            "'w/a' has a map of its holes that goes on after its end",
        ),
        (old_gnu(9, [(0, 1)] + [(1, 0)] * 6, b"1")[:600], "ends in the middle of a file"),
        (block(b"w/a", 0, b"S", b"\xff" * 24 + bytes(73) + field(9)), "'w/a' has a negative number"),
        (block(b"w/a", 0, b"S", b"9" * 24 + bytes(73) + field(9)), "no octal number"),
    ],
)
def test_a_sparse_file_that_is_malformed_is_refused_with_the_reason(stream: bytes, reason: str) -> None:
    with pytest.raises(VerificationFailed, match=reason):
        contents(stream)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../up"])
def test_the_name_of_a_sparse_file_may_not_lead_out_either(name: str) -> None:
    with pytest.raises(UnsafePath):
        contents(pax([*VERSION_1[:2], ("GNU.sparse.name", name), ("GNU.sparse.realsize", "0")], padded(b"0\n")))


@every_form
def test_a_map_has_no_end_of_pieces(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sparse, "MAX_PIECES", 30)
    allowed = [(at, 1) for at in range(30)]
    assert contents(MAKERS[form](40, allowed, b"x" * 30)) == {"w/a": b"x" * 30 + bytes(10)}
    with pytest.raises(LimitExceeded, match="'w/a' is a sparse file of more than 30 pieces"):
        contents(MAKERS[form](40, [(at, 1) for at in range(31)], b"x" * 31))


def test_a_long_map_in_an_extended_header_counts_as_one() -> None:
    pieces = [(at * 10, 1) for at in range(10_000)]
    with pytest.raises(LimitExceeded, match="extended headers of"):
        contents(pax_01(100_000, pieces, b"x" * 10_000))
    assert len(contents(pax_10(100_000, pieces, b"x" * 10_000))["w/a"]) == 100_000


def test_the_longest_map_needs_little_memory() -> None:
    """In a process of its own, where nothing else has been using memory."""
    program = """
        import resource
        from tests.unit.modelkit.test_sparse import contents, pax_10, reader, read_entries
        stream = pax_10(10_000_000, [(at * 10, 1) for at in range(65_536)], b"x" * 65_536)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for entry, content in read_entries(reader(stream), "it"):
            assert sum(map(len, content)) == entry.size == 10_000_000
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 8 * 1024


@every_form
@pytest.mark.parametrize("size", [2**63 - 1, 2**40 + 1])
def test_a_sparse_bomb_ends_before_anything_of_it_is_written(
    form: str, size: int, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = push_kit(layout, MODEL, [MAKERS[form](size, [], b"")])
    monkeypatch.setattr(os, "ftruncate", lambda *_: pytest.fail("written"))
    begun = time.monotonic()
    with pytest.raises(LimitExceeded, match="unpacks to more than 1099511627776 bytes"):
        unpack(layout, kit.digest, tmp_path / "out")
    other = push_kit(layout, MODEL, [tar_of(("w/a", b"1"))])
    [change] = diff(ModelKit.read(layout, other.digest), ModelKit.read(layout, kit.digest)).layers
    with pytest.raises(LimitExceeded, match="unpacks to more than 1099511627776 bytes"):
        diff_files(layout, layout, change)
    assert time.monotonic() - begun < 5
    assert not (tmp_path / "out").exists()


@every_form
def test_holes_count_like_other_bytes(form: str, layout: Layout, tmp_path: Path) -> None:
    hole = MAKERS[form](4 * MEBI, [(0, 10)], b"0123456789")[:-1024]
    kit = push_kit(layout, MODEL, [hole + tar_of(("w/b", bytes(4 * MEBI)))])
    with pytest.raises(LimitExceeded):
        unpack(layout, kit.digest, tmp_path / "out", limits=Limits(bytes=8 * MEBI))
    unpack(layout, kit.digest, tmp_path / "out", limits=Limits(bytes=8 * MEBI + 64 * 1024))


def test_many_holes_take_no_room_on_the_disk_either(layout: Layout, tmp_path: Path) -> None:
    pieces = [(at * MEBI, 1) for at in range(1, 200)]
    kit = push_kit(layout, MODEL, [MAKERS["pax-1.0"](200 * MEBI, pieces, b"x" * len(pieces))])
    unpack(layout, kit.digest, tmp_path / "out", ["model"])
    place = tmp_path / "out" / "w" / "a"
    assert place.stat().st_size == 200 * MEBI
    assert place.stat().st_blocks * 512 < 4 * MEBI
    assert place.read_bytes().count(b"x") == len(pieces)


@every_form
def test_a_large_hole_takes_no_room_on_the_disk(form: str, layout: Layout, tmp_path: Path) -> None:
    kit = push_kit(layout, MODEL, [MAKERS[form](2**36, [(2**35 + 1, 3)], b"abc")])
    begun = time.monotonic()
    unpack(layout, kit.digest, tmp_path / "out", ["model"])
    assert time.monotonic() - begun < 20
    place = tmp_path / "out" / "w" / "a"
    assert place.stat().st_size == 2**36
    assert place.stat().st_blocks * 512 < 4 * MEBI
    with place.open("rb") as file:
        file.seek(2**35)
        assert file.read(5) == b"\0abc\0"
