"""Bounds and tests against what is known exactly, and against chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from airflow_provider_kitops.judge.statistics import clopper_pearson_lower, holm, mean_difference
from airflow_provider_kitops.oci.errors import InvalidInput


def test_clopper_pearson_bounds_agree_with_scipy() -> None:
    for successes, trials in ((0, 10), (7, 10), (10, 10), (57, 60)):
        expected = stats.binomtest(successes, trials, alternative="greater").proportion_ci(0.95, "exact").low
        assert clopper_pearson_lower(successes, trials, 0.95) == pytest.approx(expected)


def test_holm_steps_down() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_bound_is_above_zero_exactly_if_mcnemar_says_so(wins: int, ties: int, losses: int) -> None:
    if wins + ties + losses == 0:
        return
    found = mean_difference([1.0] * wins + [0.0] * ties + [-1.0] * losses)
    one_sided = float(stats.binom.sf(wins - 1, wins + losses, 0.5)) if wins else 1.0
    assert found.p_not_above(0) == pytest.approx(one_sided)
    two_sided = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found.p_two_sided() == pytest.approx(two_sided)
    lower, upper = found.interval(0.95)
    assert (lower > 0) == (one_sided < 0.025)
    assert -1 <= lower <= found.mean <= upper <= 1


@given(st.integers(0, 30), st.integers(0, 30))
def test_without_ties_the_bound_is_that_of_clopper_and_pearson(wins: int, losses: int) -> None:
    if wins + losses == 0:
        return
    lower, _ = mean_difference([1.0] * wins + [-1.0] * losses).interval(0.9)
    assert (lower + 1) / 2 == pytest.approx(clopper_pearson_lower(wins, wins + losses, 0.95), abs=1e-6)


def test_the_sides_mirror_each_other() -> None:
    for values in ([1.0] * 9 + [0.0] * 20 + [-1.0] * 2, [0.3, -0.2, 0.9, 0.5, 0.1] * 6):
        plain, mirrored = mean_difference(values), mean_difference([-value for value in values])
        lower, upper = plain.interval(0.9)
        assert mirrored.interval(0.9) == pytest.approx((-upper, -lower), abs=0.01)


def test_drawn_weights_agree_with_the_exact_ones() -> None:
    values = [1.0] * 20 + [0.0] * 30 + [-1.0] * 6
    exact = mean_difference(values)
    # A hair off one value makes it leave the exact way.
    drawn = mean_difference([0.999999, *values[1:]])
    assert exact.test != drawn.test
    assert drawn.interval(0.95) == pytest.approx(exact.interval(0.95), abs=0.006)
    assert drawn.p_not_above(0.05) == pytest.approx(exact.p_not_above(0.05), abs=0.004)


def _outcomes(n: int) -> list[tuple[int, int, int]]:
    return [(w, n - w - loss, loss) for w in range(n + 1) for loss in range(n + 1 - w)]


def test_for_every_chance_of_winning_and_losing_the_lower_bound_fails_no_more_often_than_stated() -> None:
    """Exhaustive: every outcome of n items, weighed by its exact chance under a grid of true distributions."""
    for n in (4, 9, 16):
        outcomes = _outcomes(n)
        bounds = []
        for wins, ties, losses in outcomes:
            values = [1.0] * wins + [0.0] * ties + [-1.0] * losses
            bounds.append(mean_difference(values).interval(0.9)[0])
        lower = np.array(bounds)
        for win, loss in itertools.product(np.linspace(0, 1, 21), repeat=2):
            if win + loss > 1:
                continue
            chances = stats.multinomial.pmf(outcomes, n, [win, max(0.0, 1 - win - loss), loss])
            assert float(np.sum(chances[lower > win - loss + 1e-6])) <= 0.05 + 1e-9, (n, win, loss)


def test_a_sample_that_holds_no_loss_is_no_proof_that_there_are_none() -> None:
    # 2 % lose everything, the others win a little; the mean is zero, and 50 items hold no loss one time in three.
    lower, _ = mean_difference([0.0204] * 50).interval(0.95)
    assert lower < 0


def test_bounds_of_scores_fail_no_more_often_than_stated() -> None:
    random = np.random.default_rng(1)

    def skewed(n: int) -> np.ndarray:
        return np.where(random.random(n) < 0.05, -0.95, 0.05)

    def uniform(n: int) -> np.ndarray:
        return random.uniform(-1, 1, n)

    def concentrated(n: int) -> np.ndarray:
        return random.beta(20, 20, n) * 2 - 1

    for draw in (skewed, uniform, concentrated):
        wrong = sum(mean_difference(list(draw(30))).interval(0.8)[0] > 0 for _ in range(100))
        # The stated rate is 10 %; more than 20 of 100 happen with probability 0.001 at that rate.
        assert wrong <= 20, draw.__name__


def test_more_confidence_than_the_draws_can_give_is_the_whole_range() -> None:
    found = mean_difference([0.5, 0.6] * 50)
    assert found.interval(0.999)[0] > 0
    assert found.interval(1 - 1e-6) == (-1, 1)


def test_items_of_one_cluster_are_one_piece_of_evidence() -> None:
    values = [1.0] * 30 + [-1.0] * 10
    alone = mean_difference(values)
    lumped = mean_difference(values, [str(number // 10) for number in range(40)])
    singly = mean_difference(values, [str(number) for number in range(40)])
    assert alone.interval(0.95)[0] > 0
    assert lumped.interval(0.95)[0] < 0
    assert lumped.clusters == 4
    assert singly.interval(0.95) == alone.interval(0.95)


def test_bounds_by_cluster_fail_no_more_often_than_stated() -> None:
    random = np.random.default_rng(2)
    wrong = 0
    for _ in range(100):
        sizes = random.integers(1, 6, 15)
        values = [value for size in sizes for value in [float(random.choice([-1, 1]))] * size]
        names = [str(index) for index, size in enumerate(sizes) for _ in range(size)]
        wrong += mean_difference(values, names).interval(0.8)[0] > 0
    assert wrong <= 20


def test_the_same_data_gives_the_same_bounds() -> None:
    values = [0.1, -0.3, 0.7, 0.2] * 10
    assert mean_difference(values).interval(0.95) == mean_difference(values).interval(0.95)


@pytest.mark.parametrize("values", [[], [1.5], [float("nan")]])
def test_what_is_no_difference_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInput):
        mean_difference(values)


def test_each_difference_needs_its_cluster() -> None:
    with pytest.raises(InvalidInput, match="2 differences have 1 clusters"):
        mean_difference([0.1, 0.2], ["a"])
