"""Bounds and tests that hold for small samples: what qualification, report and gate rest on.

Differences are per item, challenger minus champion, in [-1, 1]. Their mean is bounded as Gaffke (2005) and
Learned-Miller and Thomas (2019, arXiv:1905.06208) do it for bounded variables: a Bayesian bootstrap (random weights
for the observations instead of resampling them) with one more observation at the end of the range that is worst for
the claim. For wins and losses the bound is above zero exactly if the exact McNemar test says so, for successes and
failures it is the Clopper-Pearson bound, and a sample that happens to hold no loss does not pass for proof that
there are none, as it does in the usual bootstrap. That the bound holds for every distribution and sample size is
its authors' conjecture; the tests go through all small samples of wins, ties and losses, and through distributions
of scores that break other bounds.

Where items belong together, whole clusters get a weight. No bound knows of clusters larger than any in the sample:
the more their sizes differ, the more clusters are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from airflow_provider_kitops.oci.errors import InvalidInput

_Floats = npt.NDArray[np.float64]

_DRAWS = 20_000
_SEED = 20_240_229
_CHUNK = 4_000_000
#: Nodes of the quadrature for wins, ties and losses.
_NODES = 2_000


def clopper_pearson_lower(successes: int, trials: int, confidence: float) -> float:
    """One-sided lower bound of a proportion."""
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(1 - confidence, successes, trials - successes + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values by Holm (1979): the chance of any false claim among them stays at the level."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: (p_values[key], key))):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


@dataclass(frozen=True)
class MeanDifference:
    """What is known about the mean of differences.

    :param n: items.
    :param clusters: independent groups; ``n`` without clusters.
    :param mean: over the items.
    :param test: how bounds and p-values were found, in words.
    """

    n: int
    clusters: int
    mean: float
    test: str
    _at_most: Callable[[float], float]
    _at_least: Callable[[float], float]
    _lower: Callable[[float], float]
    _upper: Callable[[float], float]

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval: either end is wrong with probability (1 - confidence) / 2 at most."""
        level = (1 - confidence) / 2
        return self._lower(level), self._upper(level)

    def p_not_above(self, margin: float) -> float:
        """One-sided p-value of the true mean being ``margin`` or less."""
        return self._at_most(margin)

    def p_not_below(self, margin: float) -> float:
        """One-sided p-value of the true mean being ``margin`` or more."""
        return self._at_least(margin)

    def p_two_sided(self) -> float:
        """Two-sided p-value of no difference."""
        return min(1.0, 2 * min(self._at_most(0.0), self._at_least(0.0)))


def mean_difference(differences: Sequence[float], clusters: Sequence[str] | None = None) -> MeanDifference:
    """Bound the mean of ``differences``.

    :param clusters: one name per difference; items of one cluster count as one piece of evidence.
    :raises InvalidInput: no differences, one outside [-1, 1], or not one cluster for each.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise InvalidInput("There are no differences to decide on.")
    if not bool(np.all(np.isfinite(values)) and np.all(np.abs(values) <= 1)):
        raise InvalidInput("A difference lies outside [-1, 1].", hint="Scale the metric to [0, 1] first.")
    if clusters is not None and len(clusters) != values.size:
        raise InvalidInput(f"{values.size} differences have {len(clusters)} clusters; one for each is needed.")
    if clusters is not None and len(set(clusters)) < values.size:
        return _by_cluster(values, clusters)
    if bool(np.all(np.isin(values, (-1.0, 0.0, 1.0)))):
        return _exact(int(np.sum(values == 1)), int(np.sum(values == 0)), int(np.sum(values == -1)))
    return _by_draws(values, np.ones_like(values), "bounded-mean bootstrap")


def _exact(wins: int, ties: int, losses: int) -> MeanDifference:
    """Wins, ties and losses: the weights of the three are Dirichlet, so no draws are needed."""

    at_most = _weights_at_most(wins, ties, losses + 1)
    mirrored = _weights_at_most(losses, ties, wins + 1)

    def at_least(margin: float) -> float:
        return mirrored(-margin)

    n = wins + ties + losses
    return MeanDifference(
        n,
        n,
        (wins - losses) / n,
        "exact McNemar, bounds by exact weights",
        at_most,
        at_least,
        lambda level: _root(at_most, level),
        lambda level: -_root(mirrored, level),
    )


def _weights_at_most(wins: int, ties: int, losses: int) -> Callable[[float], float]:
    """P(W - L <= margin) as a function of margin, for (W, T, L) ~ Dirichlet(wins, ties, losses), losses >= 1."""
    if wins == 0:
        # W = 0: L ~ Beta(losses, ties).
        return lambda margin: float(stats.beta.sf(-margin, losses, ties)) if ties else float(margin >= -1)
    # W + L and W / (W + L) are independent Beta variables; the first is integrated over its quantiles.
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    decided = np.ones(1) if ties == 0 else stats.beta.ppf(nodes, wins + losses, ties)

    def at_most(margin: float) -> float:
        if margin == 0:
            return float(special.betainc(wins, losses, 0.5))
        return float(np.mean(special.betainc(wins, losses, np.clip((1 + margin / decided) / 2, 0, 1))))

    return at_most


def _root(distribution: Callable[[float], float], level: float) -> float:
    """The largest value of which the distribution function stays at or below ``level``, within 1e-9."""
    if distribution(-1.0) > level:
        return -1.0
    return float(optimize.brentq(lambda value: distribution(value) - level, -1.0, 1.0, xtol=1e-9))


def _by_cluster(values: _Floats, clusters: Sequence[str]) -> MeanDifference:
    names = {name: index for index, name in enumerate(sorted(set(clusters)))}
    index = np.array([names[name] for name in clusters])
    sums = np.bincount(index, weights=values, minlength=len(names)).astype(np.float64)
    sizes = np.bincount(index, minlength=len(names)).astype(np.float64)
    return _by_draws(sums, sizes, "bounded-mean bootstrap by cluster")


def _by_draws(sums: _Floats, sizes: _Floats, test: str) -> MeanDifference:
    """Weights drawn with a fixed seed: the same data always gives the same bounds."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    groups = sums.size
    # The observation that is added stands for a group as large as the largest.
    added = float(np.max(sizes))
    lows, highs = [], []
    rows = max(1, _CHUNK // (groups + 1))
    for start in range(0, _DRAWS, rows):
        count = min(rows, _DRAWS - start)
        # Exponential variables divided by their sum are uniform on the simplex; the division cancels out.
        weights = -np.log1p(-random.random((count, groups + 1)))
        total, size = weights[:, :groups] @ sums, weights[:, :groups] @ sizes
        extra = weights[:, groups] * added
        lows.append((total - extra) / (size + extra))
        highs.append((total + extra) / (size + extra))
    low, high = np.sort(np.concatenate(lows)), np.sort(np.concatenate(highs))

    def lower(level: float) -> float:
        rank = int(level * (_DRAWS + 1)) - 1
        # So many draws say nothing about smaller chances; that the mean is in the range is certain.
        return float(low[rank]) if rank >= 0 else -1.0

    def upper(level: float) -> float:
        rank = int(level * (_DRAWS + 1)) - 1
        return float(high[_DRAWS - 1 - rank]) if rank >= 0 else 1.0

    return MeanDifference(
        int(np.sum(sizes)),
        groups,
        float(np.sum(sums) / np.sum(sizes)),
        test,
        lambda margin: float((1 + np.searchsorted(low, margin, side="right")) / (_DRAWS + 1)),
        lambda margin: float((1 + _DRAWS - np.searchsorted(high, margin, side="left")) / (_DRAWS + 1)),
        lower,
        upper,
    )
