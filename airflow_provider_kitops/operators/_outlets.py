"""What the assets in a task's outlets are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetRef

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def announce(task: BaseOperator, context: Context, answer: Any, **more: Any) -> None:
    """Put into the event of each asset in the task's outlets which ModelKit it is about.

    Events are sent when the task has succeeded. They are kept and shown, so they hold names and digests only.

    :param answer: what the task returns. If that is no dictionary of a ModelKit, the events stay as they are.
    :param more: what else they tell.
    """
    if not isinstance(answer, Mapping) or "digest" not in answer or "reference" not in answer:
        return
    for outlet in task.outlets:
        if isinstance(outlet, Asset | AssetRef):
            extra = context["outlet_events"][outlet].extra
            extra.update({"reference": answer["reference"], "digest": answer["digest"], **more})


def withhold(task: BaseOperator) -> None:
    """Keep Airflow from telling the assets of what has not happened."""
    task.outlets = [outlet for outlet in task.outlets if not isinstance(outlet, Asset | AssetRef)]
