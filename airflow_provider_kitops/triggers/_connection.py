"""Connections to a cluster, with credentials that are read anew when they are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.cluster.reading import status_message

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

_ERROR_LIMIT = 600  # characters; some more than what the API says in it
_SAID_LIMIT = 500  # characters; that something is forbidden takes some three hundred, with all names in it


async def said_in(answer: Any) -> str:
    """What the API says of why it refuses, in one line."""
    text = (await answer.read()).decode(errors="replace")
    return (status_message(text) or " ".join(text.split()))[:_SAID_LIMIT]


def said(error: Exception) -> str:
    """What went wrong in asking the cluster, in one line."""
    status, reason = getattr(error, "status", None), getattr(error, "reason", None)
    text = f"{status} {reason}" if status and reason else str(error)
    return " ".join(text.split())[:_ERROR_LIMIT] or type(error).__name__


class ClusterConnection:
    """Opens connections by a hook, and by another one after 401: a hook reads its credentials once.

    :param make: makes a hook. A watch that many share asks by the first one's for as long as it lasts.
    """

    def __init__(self, make: Callable[[], AsyncKubernetesHook]) -> None:
        self._make = make
        self.hook = make()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """A client of the API, for as long as the context lasts."""
        from kubernetes_asyncio.client import ApiException

        hook = self.hook
        try:
            async with hook.get_conn() as client:
                yield client
        except ApiException as error:
            if error.status == 401 and self.hook is hook:
                self.hook = self._make()
            raise
