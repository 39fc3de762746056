"""The button of a task instance that opens the registry's page of its ModelKit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_provider_kitops.links._pages import page_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ModelKitLink(BaseOperatorLink):
    """
    Open the page of the ModelKit that a task returned, where the registry has one whose address is known.

    Airflow asks for it in the worker when the task has ended, and keeps it.
    """

    name = "Open in the registry"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address; empty if the task returned no ModelKit, or if there is no such page."""
        from airflow.sdk.execution_time.xcom import XCom

        return page_of_answer(XCom.get_value(ti_key=ti_key, key="return_value"))


def page_of_answer(answer: Any) -> str:
    """The page of what an operator returned, by its first tag if it has one; or empty."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("reference"), str):
        return ""
    tags = answer.get("tags")
    return page_of(answer["reference"], tag=tags[0] if tags and isinstance(tags, list | tuple) else "") or ""
