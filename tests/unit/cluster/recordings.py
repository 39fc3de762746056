"""What a real cluster (Kubernetes 1.34) said of Jobs that ended in many ways; see ``record``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

_DIRECTORY = Path(__file__).parent / "recorded"


class Recording(NamedTuple):
    job: dict[str, Any]
    pods: list[dict[str, Any]]


def recorded(name: str) -> Recording:
    content = json.loads((_DIRECTORY / f"{name}.json").read_text())
    return Recording(content["job"], content["pods"])


def state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    """The state of a container in a recording, to be altered."""
    status = pod["status"]
    statuses = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    found: dict[str, Any] = next(each["state"] for each in statuses if each["name"] == container)
    return found
