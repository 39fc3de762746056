"""What happens to tests where something is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the tests, or fail them where ``KITOPS_TESTS_REQUIRE`` names ``cluster``."""
    if "cluster" in os.environ.get("KITOPS_TESTS_REQUIRE", "").replace(",", " ").split():
        pytest.fail(reason)
    pytest.skip(reason)
