"""Reading one-letter answers."""

from __future__ import annotations

import math

import pytest

from airflow_provider_kitops.judge.endpoint import Completion
from airflow_provider_kitops.judge.reading import option_in_text, option_log_probabilities

AB = ("A", "B")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        (" B.", "B"),
        ("**A**", "A"),
        ("Answer: B", "B"),
        ("A is better", "A"),
        ("A or B", None),
        ("Both", None),
        ("", None),
        ("I would say that the answer A is slightly better here", None),
    ],
)
def test_the_letter_is_taken_only_where_it_is_clear(text: str, letter: str | None) -> None:
    assert option_in_text(text, AB) == letter


def test_spellings_of_a_letter_add_up() -> None:
    token = (("A", math.log(0.3)), (" A", math.log(0.2)), ("B", math.log(0.25)))
    found = option_log_probabilities(Completion("A", (token,)), AB, minimum_mass=0.1)
    assert found is not None
    assert math.exp(found["A"]) == pytest.approx(0.5)


def test_a_letter_that_is_not_listed_counts_as_the_least_probable_one_listed() -> None:
    token = (("A", -0.01), ("The", -5.0))
    assert option_log_probabilities(Completion("A", (token,)), AB, minimum_mass=0.1) == {"A": -0.01, "B": -5.0}


def test_letters_of_little_probability_say_nothing() -> None:
    token = (("The", -0.01), ("A", -6.0), ("B", -7.0))
    assert option_log_probabilities(Completion("The", (token,)), AB, minimum_mass=0.1) is None


def test_blank_tokens_before_the_letter_are_passed_over() -> None:
    tokens = ((("\n", 0.0),), (("B", -0.1), ("A", -2.0)))
    assert option_log_probabilities(Completion("\nB", tokens), AB, minimum_mass=0.1) == {"A": -2.0, "B": -0.1}
