"""Names a run by what its output depends on, so that a run which was killed is gone on from by the same one only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.workload.models import ModelFiles

_SAMPLES, _BLOCK = 64, 256 * 1024


def fingerprint(settings: Sequence[BaseModel], data: Sequence[Path], model: ModelFiles) -> str:
    """Hexadecimal digits that are the same for the same run only.

    Weights may be many gigabytes, of which blocks all over the file are read: whoever trains a model on changes
    nearly every number in it, while neither names nor sizes change.

    :param settings: everything that was set.
    :param data: files that count by what they hold, wherever they are.
    :param model: base and adapter, which count by names and content.
    """
    folders = [model.base] if model.base.is_dir() else []
    folders += [model.adapter] if model.adapter else []
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    if model.is_gguf:
        paths.append(model.base)
    value = [
        [each.model_dump(mode="json") for each in settings],
        [_digest(path, whole=True) for path in data],
        [[path.parent.name, path.name, path.stat().st_size, _digest(path, whole=False)] for path in paths],
    ]
    return json_digest(value).removeprefix("sha256:")


def _digest(path: Path, *, whole: bool) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        if whole or size <= _SAMPLES * _BLOCK:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256()
        for number in range(_SAMPLES):
            file.seek(number * (size - _BLOCK) // (_SAMPLES - 1))
            found.update(file.read(_BLOCK))
        return found.hexdigest()
