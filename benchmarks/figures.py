"""What the benchmarks measured: said to whoever looks on, and kept for the JSON at the end."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence


class Figures:
    """Collects rounds, and prints the medians of their ratios."""

    def __init__(self) -> None:
        self.results: list[dict[str, object]] = []

    def ratio(self, name: str, limit: float | None, pairs: Sequence[tuple[float, float]]) -> None:
        """Add one.

        :param limit: the most that it may be, if it has one.
        :param pairs: seconds of ours and of the other side, round by round.
        """
        ratios = sorted(mine / other for mine, other in pairs)
        found = {
            "name": name,
            "ratio": round(statistics.median(ratios), 3),
            "fastest": round(ratios[0], 3),
            "slowest": round(ratios[-1], 3),
            "limit": limit,
            "seconds": round(statistics.median(mine for mine, _ in pairs), 2),
            "other_seconds": round(statistics.median(other for _, other in pairs), 2),
        }
        most = "" if limit is None else f"; at most {limit}"
        print(
            f"{name:<52} {found['ratio']:>6} ({found['fastest']} to {found['slowest']}{most}) "
            f"{found['seconds']} s against {found['other_seconds']} s",
            file=sys.stderr,
        )
        self.results.append(found)

    def value(self, name: str, value: int, unit: str) -> None:
        """Add what has nothing to compare it with."""
        print(f"{name:<52} {value} {unit}", file=sys.stderr)
        self.results.append({"name": name, "value": value, "unit": unit})
