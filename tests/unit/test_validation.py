from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from airflow_provider_kitops._validation import nearest, problems


class Bar(BaseModel):
    model_config = ConfigDict(extra="forbid")
    minimum_pairs: int = 30


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seed: int = 0
    bar: Bar | None = None
    name: str = "x"
    kind: str = Field(default="x", alias="schema")

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError("it needs a name")
        return value


def said(values: Any, **options: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    return problems(caught.value, Settings, "settings", **options)


def test_everything_that_is_wrong_is_named() -> None:
    assert said({"seed": "many", "name": ""}) == (
        "seed: Input should be a valid integer, unable to parse string as an integer; name: it needs a name"
    )
    assert said([]).startswith("settings: Input should be a valid dictionary")


def test_an_unknown_name_comes_with_the_nearest_known_one_wherever_it_is() -> None:
    assert said({"sede": 1}) == "sede: unknown name (did you mean seed?)"
    assert said({"bar": {"minimum_pair": 1}}) == "bar.minimum_pair: unknown name (did you mean minimum_pairs?)"
    assert said({"shema": "x"}) == "shema: unknown name (did you mean schema?)"
    assert said({"zzz": 1}) == "zzz: unknown name (known: seed, bar, name, schema)"


def test_values_are_shown_only_where_that_is_asked_for() -> None:
    assert "hunter2" not in said({"seed": "hunter2"})
    assert said({"seed": "many"}, show_input=True).endswith("(it is 'many')")


def test_a_document_of_somebody_else_cannot_make_a_message_of_any_length() -> None:
    assert said({f"{n}" * 1000: 1 for n in range(50)}).endswith("; and 40 more")
    assert len(said({f"{n}" * 1000: 1 for n in range(50)})) < 1500


def test_the_nearest_name_is_none_where_all_are_far() -> None:
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == "learning_rate"
    assert nearest("qqq", ["learning_rate"]) is None
