from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_model import tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A real, fast tokenizer of a few hundred pieces, with a chat template."""
    return tiny_tokenizer()
