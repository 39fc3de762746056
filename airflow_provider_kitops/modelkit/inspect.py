"""What is stored of a ModelKit, or of an index of ModelKits, as JSON values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_kitops.modelkit.index import ModelKitIndex
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor
from airflow_provider_kitops.oci.target import Target


def inspect(target: Target, reference: str, labels: Mapping[str, str]) -> tuple[Descriptor, dict[str, Any]]:
    """The manifest that a tag or digest names, and what it says.

    :param labels: which ModelKit to take of an index; with none it is the index itself that is looked at.
    :return: its descriptor; and ``manifest`` and ``config``, or ``manifest`` and ``modelkits`` of an index, these with
        ``digest`` and ``labels`` each.
    :raises NotFound, InvalidInput, LimitExceeded, VerificationFailed: as ``ModelKit.read`` raises them.
    """
    descriptor = target.resolve(reference)
    if descriptor.media_type == INDEX and not labels:
        index = ModelKitIndex.read(target, descriptor)
        modelkits = [each.to_json() for each in index.modelkits]
        return descriptor, {"manifest": index.manifest, "modelkits": modelkits}
    kit = ModelKit.read(target, reference, labels)
    return kit.descriptor, {"manifest": json.loads(kit.manifest), "config": json.loads(kit.config)}
