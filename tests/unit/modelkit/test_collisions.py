"""Names that are one on macOS and Windows are refused when unpacking, unless told otherwise; packing warns of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from airflow_provider_kitops.cli import main
from airflow_provider_kitops.modelkit._collisions import first_collision, folded
from airflow_provider_kitops.modelkit.kitfile import Code, Kitfile, Model, ModelPart
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import Limits, unpack
from airflow_provider_kitops.oci.errors import LimitExceeded, UnsafePath, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write, push_kit, tar_of
from tests.unit.modelkit.test_unpack import resolver, tree

MODEL = Kitfile(model=Model(path="w"))
COMPOSED, DECOMPOSED = "w/\u00e9", "w/e\u0301"
PAIRS = [
    ("w/a", "w/A"),
    ("w/A", "w/a"),
    ("w/README.md", "w/Readme.md"),
    (COMPOSED, DECOMPOSED),
    ("w/\u00c9", DECOMPOSED),
    ("w/stra\u00dfe", "w/STRASSE"),
    ("w/\u03c3", "w/\u03c2"),
    ("w/\u1fb3\u0301", "w/\u0391\u0301\u0399"),
    ("W/a", "w/b"),
    ("w/D/x", "w/d/y"),
]


@pytest.mark.parametrize(("one", "two"), PAIRS)
@pytest.mark.parametrize("layers", [1, 2])
def test_names_that_collide_are_refused_and_nothing_is_written(
    one: str, two: str, layers: int, layout: Layout, tmp_path: Path
) -> None:
    files = [(one, b"1"), (two, b"2")]
    kitfile = Kitfile(model=Model(path="w"), code=(Code("x"),) if layers == 2 else ())
    blobs = [tar_of(*files)] if layers == 1 else [tar_of(file) for file in files]
    kit = push_kit(layout, kitfile, blobs)
    with pytest.raises(UnsafePath) as caught:
        unpack(layout, kit.digest, tmp_path / "out", concurrency=1)
    first = next(a for a, b in zip(one.split("/"), two.split("/"), strict=True) if a != b)
    assert f"{first}'" in caught.value.message
    assert "--allow-case-collisions" in caught.value.hint
    assert not (tmp_path / "out").exists()
    unpack(layout, kit.digest, tmp_path / "out", ["model,code"], allow_case_collisions=True)
    assert {name: data for name, data in tree(tmp_path / "out").items() if data} == dict(files)


def test_the_error_names_both(layout: Layout, tmp_path: Path) -> None:
    kit = push_kit(layout, MODEL, [tar_of(("w/Data/x", b"1"), ("w/data/y", b"2"))])
    with pytest.raises(UnsafePath, match="'w/Data' and 'w/data'"):
        unpack(layout, kit.digest, tmp_path / "out")


@pytest.mark.parametrize("mode", [{}, {"overwrite": True}, {"ignore_existing": True}])
def test_a_modelkit_and_its_base_may_not_collide_either(mode: dict[str, bool], layout: Layout, tmp_path: Path) -> None:
    layout.tag(push_kit(layout, MODEL, [tar_of(("w/a", b"base"))]), "base")
    based = Kitfile(model=Model(path="demo/model:base", parts=(ModelPart(path="w/A"),)))
    child = push_kit(layout, based, [tar_of(("w/A", b"child"))])
    with pytest.raises(UnsafePath, match="'w/a' and 'w/A'"):
        unpack(layout, child.digest, tmp_path / "out", parents=resolver(layout), **mode)
    assert not (tmp_path / "out").exists()


def test_the_kitfile_collides_like_any_other(layout: Layout, tmp_path: Path) -> None:
    kit = push_kit(layout, MODEL, [tar_of(("KITFILE", b"1"))])
    with pytest.raises(UnsafePath, match="'KITFILE' and 'Kitfile'"):
        unpack(layout, kit.digest, tmp_path / "out")


@pytest.mark.parametrize("allowed", [True, False])
def test_the_same_name_twice_is_an_error_as_before(allowed: bool, layout: Layout, tmp_path: Path) -> None:
    for files in ([("w/A", b"1"), ("w/A", b"2")], [("w/A", b"1"), ("w/A/b", b"2")], [("w/A/b", b"1"), ("w/A", b"2")]):
        kit = push_kit(layout, MODEL, [tar_of(*files)])
        with pytest.raises(VerificationFailed):
            unpack(layout, kit.digest, tmp_path / "out", allow_case_collisions=allowed)


def test_capital_letters_alone_are_no_collision(layout: Layout, tmp_path: Path) -> None:
    files = [("W/A", b"1"), ("W/b/C", b"2"), ("W/b/\u00c9", b"3"), ("W/B2/C", b"4")]
    unpack(layout, push_kit(layout, MODEL, [tar_of(*files)]).digest, tmp_path / "out", ["model"])
    assert {name: data for name, data in tree(tmp_path / "out").items() if data} == dict(files)


def test_both_spellings_that_are_remembered_count(layout: Layout, tmp_path: Path) -> None:
    lower, upper = ([(f"{number}{letter * 200}", b"") for number in range(20)] for letter in ("a", "A"))
    unpack(layout, push_kit(layout, MODEL, [tar_of(*lower)]).digest, tmp_path / "lower", limits=Limits(names=8000))
    with pytest.raises(LimitExceeded, match="need more than 8000 bytes"):
        unpack(layout, push_kit(layout, MODEL, [tar_of(*upper)]).digest, tmp_path / "out", limits=Limits(names=8000))


def test_a_name_that_folding_does_not_change_is_not_kept_twice() -> None:
    for name in ("w/a-b_c.json", "w/\u00e9", "\u4e2d\u6587"):
        assert folded(name) is name


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_collision_is_found_in_any_order_and_only_where_there_is_one(one: str, two: str) -> None:
    def names(*files: str) -> list[str]:
        directories = {str(parent) for file in files for parent in Path(file).parents if str(parent) != "."}
        return sorted([*directories, *files])

    for files in ((one, two), (two, one)):
        found = first_collision(lambda files=files: iter(names(*files, "w/other", "x")))
        assert found is not None
        assert found[0] != found[1]
        assert folded(found[0]) == folded(found[1])
    assert first_collision(lambda: iter(names(one, one, "x"))) is None
    assert first_collision(lambda: iter(names("x/" + one, "y/" + two))) is None


@pytest.mark.parametrize("two_layers", [True, False])
def test_packing_warns_once_and_names_two(
    two_layers: bool, layout: Layout, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    context = write({"w/A": "1", "w/a": "2", "w/B": "3", "w/b": "4", "v/x": "5", "V/X": "6"})
    kitfile = Kitfile(model=Model(path="v"), code=(Code("V"),)) if two_layers else MODEL
    with caplog.at_level(logging.WARNING):
        pack(context, kitfile, layout, "v1")
    [record] = [record for record in caplog.records if "are one name on disks" in record.message]
    assert record.message.startswith(("V and v are", "v and V are") if two_layers else ("w/A and w/a", "w/a and w/A"))


def test_packing_says_nothing_of_a_file_that_is_left_out(
    layout: Layout, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    pack(write({"w/A": "1", "w/a": "2", "W/a": "3", ".kitignore": "w/A\n"}), MODEL, layout, "v1")
    assert "are one name" not in caplog.text


def test_the_command_has_a_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path / "layout", "demo/model")
    layout.tag(push_kit(layout, MODEL, [tar_of(("w/a", b"1"), ("w/A", b"2"))]), "v1")
    call = ["unpack", "demo/model:v1", "--layout", str(tmp_path / "layout"), "-d", str(tmp_path / "out")]
    assert main(call) == 6
    assert "--allow-case-collisions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*call, "--allow-case-collisions"]) == 0
    assert (tmp_path / "out" / "w" / "A").read_text() == "2"
