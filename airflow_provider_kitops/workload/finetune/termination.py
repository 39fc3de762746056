"""SIGTERM while a model is trained: the step that is under way is worth finishing and keeping."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Termination:
    """Whether the program was asked to end."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the first SIGTERM in the block only ask, and the next one do what it did before the block."""
        if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
            yield
            return
        before = signal.getsignal(signal.SIGTERM)

        def ask(number: int, frame: FrameType | None) -> None:
            self.requested = True
            signal.signal(signal.SIGTERM, before)
            # print() may be in the middle of a line already, and cannot be called again then.
            os.write(1, b"SIGTERM: ending after this step, with a checkpoint.\n")

        signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
