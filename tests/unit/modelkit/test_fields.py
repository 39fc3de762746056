"""Fields by path, read and edited."""

from __future__ import annotations

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


@pytest.mark.parametrize("path", ["model.flavour", "datasets[2]", "package.name.x", "package[0]", "datasets.name"])
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
