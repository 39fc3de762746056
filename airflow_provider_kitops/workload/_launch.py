"""Runs one command and takes its whole process group down when whoever started it goes away.

Started by path with ``python -I -S``, so it imports nothing outside the standard library. A parent that is killed
(SIGKILL) cannot clean up after itself; without this, a training would go on, unseen, next to its own restart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> int:
    """Run ``command`` while the process ``parent`` lives; the exit code is the command's (128 + n for signal n)."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _end_group)
    if sys.platform == "linux":
        import ctypes

        # Linux tells at once when the thread that started this one ends: it waits for the program, so it does not end
        # before its process does. The loop below finds out elsewhere, and where the parent was gone before this call.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"Cannot start {command[0]!r}: {error.strerror}.", file=sys.stderr)  # noqa: T201 - goes to the log
        return 127
    while True:
        if os.getppid() != parent:
            _end_group()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(timeout=1)
            return code if code >= 0 else 128 - code


def _end_group(number: int = 0, frame: FrameType | None = None) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
