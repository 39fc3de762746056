"""What programs and the cluster write, made fit for a log and a page that people read."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
# What controls a terminal or the direction of a text, and what Airflow's page of a log folds lines by.
_MISLEADING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|::(?=(?:end)?group::)")


def plain(text: str) -> str:
    """A line that a program may have written, without what would mislead whoever reads it on Airflow's page."""
    return _MISLEADING.sub("\N{REPLACEMENT CHARACTER}", _COLOUR.sub("", text))
