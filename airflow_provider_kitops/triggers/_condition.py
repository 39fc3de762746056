"""What the sensor and its trigger wait for."""

from __future__ import annotations


def reached(digest: str, moved_from: str | None, moved_to: str | None) -> bool:
    """Whether a tag that names ``digest`` is where a sensor waits for it to be."""
    return digest != moved_from and moved_to in (None, digest)
