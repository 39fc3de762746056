"""References as DAGs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.hooks._arguments import path_argument
from airflow_provider_kitops.hooks._references import digest_text, reference_text, split_reference
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference

DIGEST = "sha256:" + "a" * 64


def test_the_output_of_an_operator_is_a_reference() -> None:
    assert reference_text({"reference": f"demo/model@{DIGEST}", "tags": []}, "x") == f"demo/model@{DIGEST}"


@pytest.mark.parametrize("value", [None, "", 7, {}, {"reference": None}, ["demo/model"]])
def test_what_is_no_reference_is_told_with_the_argument(value: Any) -> None:
    with pytest.raises(InvalidReference, match="challenger is"):
        reference_text(value, "challenger")


def test_a_dictionary_rendered_into_text_is_told_how_to_write_it() -> None:
    with pytest.raises(InvalidReference, match="xcom_pull"):
        reference_text(str({"reference": "demo/model:v1"}), "reference")


@pytest.mark.parametrize("value", [DIGEST, f"demo/model@{DIGEST}", f"h:1/demo/model:v1@{DIGEST}", {"digest": DIGEST}])
def test_a_digest_is_found_in_every_form(value: Any) -> None:
    assert digest_text(value, "expected") == DIGEST


@pytest.mark.parametrize("value", [None, "", "None"])
def test_no_digest_is_none_also_after_rendering(value: Any) -> None:
    assert digest_text(value, "expected") is None


@pytest.mark.parametrize("value", ["demo/model:v1", {"reference": "demo/model:v1"}, 7, "sha256:abc"])
def test_a_tag_is_no_digest(value: Any) -> None:
    with pytest.raises(InvalidReference, match="names no digest"):
        digest_text(value, "expected")


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("demo/model", None, ("demo/model", [])),
        ("demo/model:v1", None, ("demo/model", ["v1"])),
        (
            "127.0.0.1:5000/demo/model:v1,latest",
            "v1, stable",
            ("127.0.0.1:5000/demo/model", ["v1", "latest", "stable"]),
        ),
        ("localhost:5000/model", ["v1"], ("localhost:5000/model", ["v1"])),
        ("demo/model:v1", ["", "a,b"], ("demo/model", ["v1", "a", "b"])),
    ],
)
def test_tags_are_split_from_the_repository(text: str, more: Any, expected: Any) -> None:
    assert split_reference(text, more) == expected


def test_nothing_is_written_to_a_digest() -> None:
    with pytest.raises(InvalidReference, match="names a digest"):
        split_reference(f"demo/model@{DIGEST}")


@pytest.mark.parametrize("text", ["demo/model:", "demo/model:v1,,v2", "demo/model:v1,no good"])
def test_a_malformed_tag_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="Malformed tag"):
        split_reference(text)


@pytest.mark.parametrize("value", [None, "", " ", "None", 5, {}, b"/tmp"])
def test_what_is_no_path_is_told_with_the_argument(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"directory is .*, not a path"):
        path_argument(value, "directory")


@pytest.mark.parametrize("value", ["/data", "relative", ".", "./None", Path("/data")])
def test_a_path_is_taken_as_it_is(value: str | Path) -> None:
    assert path_argument(value, "directory") == Path(value)


@pytest.mark.parametrize(
    ("text", "more", "argument"),
    [("a/b:None", None, "destination"), ("a/b:v1", "None", "tags"), ("a/b", ["v1", "None"], "tags")],
)
def test_a_tag_that_a_template_made_of_nothing_is_refused(text: str, more: Any, argument: str) -> None:
    with pytest.raises(InvalidReference, match=f"{argument} names the tag 'None'"):
        split_reference(text, more, "destination")
