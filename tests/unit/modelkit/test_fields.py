"""Fields by path, read and edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit.edit import edit_kitfile
from airflow_provider_kitops.modelkit.fields import field_of, parse_path
from airflow_provider_kitops.modelkit.kitfile import Kitfile, parse_kitfile
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile, NotFound

TEXT = """\
# Who to ask: the news team.
manifestVersion: 1.0.0
package:
  name: news        # as in the catalogue
  version: 1.10
  authors: [Ada, "Grace"]

model:
  path: weights     # from the nightly run
  parameters:
    rank: 8         # tried 16: no better
    rate: 1e-4
datasets:
  # cleaned in May
  - name: train
    path: data/train.csv
  - name: valid
    path: data/valid.csv
"""


def test_a_field_is_found_by_its_path() -> None:
    kitfile = parse_kitfile(TEXT)
    assert field_of(kitfile, ".package.version") == "1.10"
    assert field_of(kitfile, "datasets[1].path") == "data/valid.csv"
    assert field_of(kitfile, "model.parameters") == {"rank": 8, "rate": 0.0001}
    assert field_of(kitfile, "package.authors[1]") == "Grace"
    assert field_of(Kitfile(), "") == {"manifestVersion": "1.0.0", "package": {}}


@pytest.mark.parametrize(
    "path", ["model.flavour", "datasets[2]", "package.name.x", "package[0]", "package.name[0]", "datasets.name"]
)
def test_a_field_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(NotFound, match="has no"):
        field_of(parse_kitfile(TEXT), path)


@pytest.mark.parametrize("path", ["..", "a..b", "a[", "a[x]", "a b", "[0]a", "a[-1]", "$"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="no path"):
        parse_path(path)


def test_an_edit_keeps_everything_else_with_its_comments() -> None:
    edited = edit_kitfile(TEXT, {"package.version": "1.11", "model.parameters.rank": 16})
    assert edited == TEXT.replace("version: 1.10", "version: '1.11'").replace("rank: 8 ", "rank: 16")
    assert parse_kitfile(edited).package.version == "1.11"


def test_entries_are_added_and_removed() -> None:
    edited = edit_kitfile(
        TEXT, {"datasets[2]": {"path": "data/test.csv"}, "datasets[0]": None, "code[0].path": "src", "model.name": "n"}
    )
    kitfile = parse_kitfile(edited)
    assert [dataset.path for dataset in kitfile.datasets] == ["data/valid.csv", "data/test.csv"]
    assert kitfile.code[0].path == "src"
    assert kitfile.model is not None
    assert kitfile.model.name == "n"
    for comment in ("the news team", "as in the catalogue", "from the nightly run", "tried 16"):
        assert comment in edited


def test_an_edit_that_breaks_a_rule_or_leads_nowhere_is_refused() -> None:
    for changes, error in (
        ({"package.flavour": "x"}, InvalidKitfile),
        ({"model.path": "/etc"}, InvalidKitfile),
        ({"datasets[5].path": "x"}, InvalidInput),
        ({"datasets[9]": None}, InvalidInput),
        ({"package.name.first": "x"}, InvalidInput),
        ({"": "x"}, InvalidInput),
        ({"package.description": None}, InvalidInput),
    ):
        with pytest.raises(error):
            edit_kitfile(TEXT, changes)


@given(st.text(max_size=40))
@example("one\x85two\u2028three")
def test_any_text_comes_back_as_it_was_set(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    try:
        edited = edit_kitfile(TEXT, {"package.description": value})
    except InvalidKitfile:
        return  # characters that YAML has no form for
    assert parse_kitfile(edited).package.description == value


def edited(body: str, changes: dict[str, object]) -> str:
    return edit_kitfile(f"manifestVersion: 1.0.0\n{body}", changes).removeprefix("manifestVersion: 1.0.0\n")


@pytest.mark.parametrize(
    ("body", "changes", "field"),
    [
        (
            "model: {path: a, parameters: &p {rank: 8}}\ndatasets: [{path: b, parameters: *p}]\n",
            {"model.parameters.rank": 16},
            r"datasets\[0\].parameters.rank",
        ),
        (
            "model: {path: a, parameters: {one: &o {x: 1}, two: {<<: *o, y: 2}}}\n",
            {"model.parameters.one.x": 3},
            "model.parameters.two.x",
        ),
        (
            "model: {path: a, parameters: {one: &o {x: 1}, two: {<<: *o, x: 2}}}\n",
            {"model.parameters.two.x": None},
            "model.parameters.two.x",
        ),
        (
            "model: {path: a, parameters: {one: &o {x: 1}, two: {<<: *o}}}\n",
            {"model.parameters.two.x": None},
            "model.parameters.two.x",
        ),
        ("datasets: [null, {path: a}, {path: b}]\n", {"datasets[1].path": "c"}, r"datasets\[0\].path"),
    ],
)
def test_an_edit_that_would_change_another_field_too_is_refused(
    body: str, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidKitfile, match=field) as refused:
        edited(body, changes)
    assert "by hand" in str(refused.value)


def test_an_edit_beside_aliases_and_merges_keeps_them() -> None:
    body = "model:\n  path: a\n  parameters:\n    one: &o {x: 1}\n    two:\n      <<: *o\n      y: 2\n    three: *o\n"
    assert edited(body, {"model.parameters.two.y": 3}) == body.replace("y: 2", "y: 3")
    assert edited(body, {"model.parameters.two.x": 3}) == body.replace("y: 2\n", "y: 2\n      x: 3\n")


def test_scalars_that_are_not_edited_stay_as_written() -> None:
    scalars = ["0X1fF", "1_000", "014", "0o14", "2001-12-14T21:59:43.123456789Z", "yes", "1E3", "~", "1.50", "+1"]
    body = "model:\n  path: a\n  parameters:\n" + "".join(f"    k{at}: {each}\n" for at, each in enumerate(scalars))
    assert edited(body, {"model.path": "b"}) == body.replace("path: a", "path: b")


def test_a_directive_that_an_edit_would_lose_is_refused() -> None:
    with pytest.raises(InvalidKitfile, match="directive"):
        edit_kitfile("%YAML 1.1\n---\nmanifestVersion: 1.0.0\ncode: [{path: a}]\n", {"code[0].path": "b"})


def test_line_endings_the_mark_at_the_start_and_a_missing_last_break_are_kept() -> None:
    wanted = TEXT.replace("path: weights ", "path: w       ")
    changes: list[Callable[[str], str]] = [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip(),
    ]
    for change in changes:
        assert edit_kitfile(change(TEXT), {"model.path": "w"}) == change(wanted)


def test_a_removed_field_takes_the_comments_in_it_along_and_no_others() -> None:
    head = "package:  # what it is\n  name: a\n# the data\ndatasets:"
    body = f"{head}  # all\n  # cleaned\n  - path: b  # big\n# the rest\ncode:\n  - path: c\n"
    assert edited(body, {"datasets[0]": None}) == f"{head} [] # all\n# the rest\ncode:\n  - path: c\n"
    assert edited(body, {"datasets": []}).startswith(f"{head} [] # all\n")
    two = body.replace("# the rest", "  - path: d # small\n# the rest")
    assert edited(two, {"datasets[1]": None}) == body
    assert edited(two, {"datasets": None}) == "package:  # what it is\n  name: a\n# the data\n# the rest\n" + (
        "code:\n  - path: c\n"
    )


@pytest.mark.parametrize("text", ["a", "a  # beside", "|\n      a\n      b", ">-\n      a\n      b"])
@pytest.mark.parametrize("value", [None, "c"])
@pytest.mark.parametrize("path", ["model.description", "model"])
def test_comments_below_what_is_changed_stay(text: str, value: str | None, path: str) -> None:
    body = f"model:\n  path: a\n  description: {text}\n# the data\ndatasets:\n  - path: b\n"
    new = value if value is None or path != "model" else {"path": "c"}
    assert "# the data\ndatasets:\n  - path: b\n" in edited(body, {path: new})


def test_numbers_become_text_but_in_parameters() -> None:
    text = edit_kitfile(TEXT, {"package.version": 2, "model.parameters": {"a": 2, "b": [True, None, 1e-7, "2", -0.0]}})
    kitfile = parse_kitfile(text)
    assert kitfile.package.version == "2"
    assert kitfile.model is not None
    assert kitfile.model.parameters == {"a": 2, "b": [True, None, 1e-7, "2", 0]}


def test_a_value_that_a_kitfile_has_no_form_for_is_refused_by_name() -> None:
    for value in (Path("a"), {"x": Path("a")}, {1: "a"}):
        with pytest.raises(InvalidInput, match=r"package\.name"):
            edit_kitfile(TEXT, {"package.name": value})
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidInput, match="deeply"):
        edit_kitfile(TEXT, {"model.parameters": endless})
