"""What Airflow is told of an error: retry, or do not."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowOptionalProviderFeatureException,
)

from airflow_provider_kitops.hooks._errors import airflow_errors, optional_feature
from airflow_provider_kitops.oci import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.KitopsError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_transient_errors_are_retried(kind: type[errors.KitopsError]) -> None:
    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise kind("It went wrong.", hint="Do this.")
    assert isinstance(caught.value, AirflowFailException) is not kind.transient
    assert str(caught.value) == "It went wrong. Do this."


def test_an_error_of_ours_that_is_none_of_these_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), airflow_errors():
        raise ZeroDivisionError


def test_a_missing_library_names_the_extra() -> None:
    with (
        pytest.raises(AirflowOptionalProviderFeatureException, match=r"airflow-provider-kitops\[judge\]"),
        optional_feature("Judging", "judge"),
    ):
        import no_such_library_at_all  # noqa: F401


def test_a_missing_module_of_this_package_is_a_bug_and_not_a_missing_extra() -> None:
    with pytest.raises(ImportError, match="no_such_part"), optional_feature("Judging", "judge"):
        import airflow_provider_kitops.no_such_part  # noqa: F401
