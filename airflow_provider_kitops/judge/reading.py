"""Reading a short answer: how probable each allowed answer is, or at least which one was given."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from airflow_provider_kitops.judge.endpoint import Completion


def option_log_probabilities(
    completion: Completion, options: Sequence[str], *, minimum_mass: float
) -> dict[str, float] | None:
    """Log-probability of each option at the token where the answer is given.

    An option that is not among the alternatives counts as probable as the least probable one listed, which is more
    than it is: the preference is never overstated.

    :param minimum_mass: of the options together; below it the judge was about to say something else.
    :returns: None if no log-probabilities were given, or they say nothing about the options.
    """
    for position in completion.tokens:
        if not position[0][0].strip():
            continue
        found: dict[str, list[float]] = {}
        for token, value in position:
            if token.strip() in options:
                found.setdefault(token.strip(), []).append(value)
        mass = sum(math.exp(value) for values in found.values() for value in values)
        if not found or mass < minimum_mass:
            return None
        floor = min(value for _, value in position)
        return {option: _sum(found.get(option, [floor])) for option in options}
    return None


def option_in_text(text: str, options: Sequence[str]) -> str | None:
    """The option that the text gives as its answer; None if it gives none, or talks about several."""
    words: list[str] = re.findall(r"\w+", text)
    named = {word for word in words if word in options}
    if words and words[0] in options and (len(words) == 1 or len(named) == 1):
        return words[0]
    return named.pop() if len(named) == 1 and len(words) <= 4 else None


def _sum(values: Sequence[float]) -> float:
    """log(sum(exp(values)))."""
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
