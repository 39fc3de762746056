"""Progress lines: how a program tells, on its standard output, how far it is.

A line is the marker, a space, and one JSON object with any of the fields of ``WorkloadProgress``. Anything else that
a program prints is log. The marker keeps a program's own JSON output from being taken for progress.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import Any, TextIO

#: First characters of every progress line.
MARKER = "KITOPS-PROGRESS"

_MOST = 2**53  # a number beyond is no count and no figure
_PHASE_LIMIT = 40


@dataclass(frozen=True)
class WorkloadProgress:
    """How far a program is.

    :param phase: what it is doing, in one word (``load``, ``train``, ``evaluate``, ``generate``).
    :param step: steps done (training steps, or items answered).
    :param total: steps in all, where known.
    :param loss: training loss of the last step.
    :param tokens_per_second: tokens trained on or generated per second, since the phase began.
    :param eta: seconds to the end of the phase.
    """

    phase: str
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    eta: float | None = None

    def to_line(self) -> str:
        """The progress line, without the line's end. Fields that are unknown or not finite are left out."""
        fields = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in asdict(self).items()
            if value is not None and not (isinstance(value, float) and not math.isfinite(value))
        }
        return f"{MARKER} {json.dumps(fields)}"

    def __str__(self) -> str:
        """The same for people: ``train 12/60, loss 1.2345, 320 tokens/s, 25 s left``."""
        parts = [self.phase]
        if self.step is not None:
            parts[0] += f" {self.step}/{self.total}" if self.total is not None else f" {self.step}"
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:.0f} tokens/s")
        if self.eta is not None:
            parts.append(f"{self.eta:.0f} s left")
        return ", ".join(parts)


def parse_progress(line: str) -> WorkloadProgress | None:
    """The progress that ``line`` reports; None if it is no progress line, or not a well-formed one.

    A program's output is not ours to refuse: a malformed line is log, never an error.
    """
    marker, _, text = line.strip().partition(" ")
    if marker != MARKER:
        return None
    try:
        fields: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("phase"), str):
        return None

    def number(key: str) -> float | None:
        value = fields.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _MOST:
            return None
        return float(value) if math.isfinite(value) else None

    def count(key: str) -> int | None:
        value = number(key)
        return None if value is None or not value.is_integer() else int(value)

    # It goes on to where no text may hold control characters (databases), and on one line.
    phase = "".join(each for each in fields["phase"] if each.isprintable())[:_PHASE_LIMIT]
    return WorkloadProgress(
        phase, count("step"), count("total"), number("loss"), number("tokens_per_second"), number("eta")
    )


def report(progress: WorkloadProgress, stream: TextIO | None = None) -> None:
    """Write the progress line to ``stream`` (standard output by default) at once."""
    print(progress.to_line(), file=stream or sys.stdout, flush=True)
