"""Fields by path, read and edited."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
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
    assert field_of(Kitfile(), ".") == field_of(Kitfile(), "")
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
        ({"package[0]": "x"}, InvalidInput),
        (dict.fromkeys(("manifestVersion", "package", "model", "datasets")) | {"model.path": "w"}, InvalidInput),
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


def test_directives_and_further_documents_stay() -> None:
    text = "%YAML 1.1\n# first\n---\nmanifestVersion: 1.0.0\ncode: [{path: a}]\n--- # second\nb: c\n"
    assert edit_kitfile(text, {"code[0].path": "b"}) == text.replace("path: a", "path: b")


def test_comments_in_brackets_and_spare_commas_stay() -> None:
    body = "code: [\n  {path: a}, # one\n  {path: b}, # two\n]\nmodel: {'path': w, } # three\n"
    assert edited(body, {"code[1].path": "c"}) == body.replace("path: b", "path: c")
    assert edited(body, {"code[0]": None}) == body.replace("  {path: a}, # one\n", "")
    assert edited(body, {"code[1]": None}) == body.replace("  {path: b}, # two\n", "")
    assert edited(body, {"code[2].path": "c"}) == body.replace("{path: b},", "{path: b}, {path: c},")
    assert edited(body, {"model.name": "net"}) == body.replace("w, }", "w, name: net, }")


def test_what_an_alias_stands_for_is_not_changed_at_the_alias() -> None:
    body = "model: {path: a, parameters: &p {rank: 8}}\ndatasets: [{path: b, parameters: *p}]\n"
    with pytest.raises(InvalidKitfile, match=r"datasets\[0\]\.parameters\.rank .* line 3: what \*p stands for"):
        edited(body, {"datasets[0].parameters.rank": 16})
    assert edited(body, {"datasets[0].parameters": {"rank": 16}}) == body.replace("*p", "{rank: 16}")
    with pytest.raises(InvalidKitfile, match="undefined alias"):
        edited(body, {"model.parameters": {"rank": 16}})


LINES = [
    "manifestVersion: 1.0.0",
    "package: # whole",
    "  # above",
    "  'name': \"two",
    '    lines" # name',
    "  version: 014",
    "  description: >-",
    "    folded",
    "",
    "    text",
    "  authors: [yes, 'no', # first",
    "    1e3]",
    "# between",
    "model:",
    "  path: w",
    "  parameters: # p",
    "    a: &a",
    "    # in a",
    "    - 0x1f",
    "    -   k: 1_000",
    "        l: !!str 1",
    "    b: ~",
    "datasets:",
    "- path: d # d",
    "  # of d",
    "  parameters: {x: {}, y: [1, {z: .5}, ], } # x",
    "-",
    "  path: e",
    "# end",
]
PATHS = [
    "package.name", "package.version", "package.description", "package.license", "package.authors[0]",
    "package.authors[2]", "model.path", "model.name", "model.parameters.a[0]", "model.parameters.a[1].k",
    "model.parameters.a[1]", "model.parameters.a[2]", "model.parameters.b", "model.parameters.b.c",
    "model.parameters.n", "datasets[0].name", "datasets[1].path", "datasets[0].parameters.x.a",
    "datasets[0].parameters.y[0]", "datasets[0].parameters.y[1].z", "datasets[0].parameters.y[2]",
    "datasets[0].parameters",
]  # fmt: skip
VALUES: list[object] = [None, "w2", "1.5", "a # b", "a: b", " two\nlines", "", "\u2028"]


@settings(deadline=None)
@given(
    st.sampled_from(PATHS), st.sampled_from(VALUES), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"])
)
@example("datasets[0].parameters.y[2]", "[", "\r\n", "\ufeff")
def test_any_edit_changes_its_field_and_touches_no_other_line(path: str, value: object, end: str, mark: str) -> None:
    text = mark + end.join([*LINES, ""])
    try:
        now = edit_kitfile(text, {path: value})
    except (InvalidInput, InvalidKitfile):
        assert not value, "there is nothing to remove, or the path of a layer is missing"
        return
    kitfile = parse_kitfile(now)
    if value is not None:
        assert (field_of(kitfile, path) if value else "") == value
    written = [line for line in LINES if line]
    gone = [line for line in written if line not in now.removeprefix(mark).split(end)]
    assert len(gone) <= (4 if path in ("package.description", "model.parameters.a[1]") else 2)
    assert gone == [] or written[written.index(gone[0]) :][: len(gone)] == gone, "they are beside each other"
    beside = {line.partition("# ")[2] for line in gone} - {""}
    kept = {"whole", "above", "between", "p", "in a", "of d", "end"}
    assert all(f"# {comment}" in now for comment in (kept | beside if value is not None else kept))


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
    assert edited(body, {"datasets[0]": None}) == f"{head} []  # all\n# the rest\ncode:\n  - path: c\n"
    assert edited(body, {"datasets": []}).startswith(f"{head} []  # all\n")
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
    for value in (Path("a"), {"x": Path("a")}, {1: "a"}, 10**5000):
        with pytest.raises(InvalidInput, match=r"package\.name"):
            edit_kitfile(TEXT, {"package.name": value})
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidInput, match="deeply"):
        edit_kitfile(TEXT, {"model.parameters": endless})


def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "modelkits.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    kitfile = "manifestVersion: 1.0.0\npackage:\n  name: net  # ours\nmodel:\n  path: w\n  license: MIT\n"
    (tmp_path / "net" / "Kitfile").write_text(kitfile)
    exec(example, {})
    edited = (tmp_path / "net" / "Kitfile").read_text()
    assert "name: net  # ours" in edited
    assert "MIT" not in edited
