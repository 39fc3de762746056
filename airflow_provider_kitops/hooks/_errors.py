"""How the package's errors reach Airflow: what may succeed later is retried, everything else fails at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
)

from airflow_provider_kitops.oci.errors import KitopsError


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn errors of ``oci.errors`` into Airflow's. Use as a context manager or as a decorator.

    :raises AirflowException: the same call may succeed later; Airflow retries the task.
    :raises AirflowFailException: it will not; a retry would burn time and change nothing.
    """
    try:
        yield
    except KitopsError as error:
        kind = AirflowException if error.transient else AirflowFailException
        raise kind(str(error)) from error


@contextmanager
def optional_feature(feature: str, extra: str) -> Iterator[None]:
    """Name the extra to install when a library of an optional feature is missing.

    :param feature: what the user asked for.
    :param extra: the extra of this package that brings it.
    :raises AirflowOptionalProviderFeatureException: a library outside this package cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "airflow_provider_kitops":
            raise
        raise _missing(feature, extra, error.name or "a library") from error


def require(feature: str, extra: str, *modules: str) -> None:
    """Look whether libraries are there that something else than this process will load.

    :raises AirflowOptionalProviderFeatureException: one is not.
    """
    for module in modules:
        if find_spec(module) is None:
            raise _missing(feature, extra, module)


def _missing(feature: str, extra: str, module: str) -> AirflowOptionalProviderFeatureException:
    return AirflowOptionalProviderFeatureException(
        f"{feature} needs {module}, which is not installed here. "
        f"Install airflow-provider-kitops[{extra}] on the workers."
    )
