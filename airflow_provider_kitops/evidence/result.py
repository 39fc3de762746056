"""in-toto test result v0.1 (in-toto/attestation, spec/predicates/test-result.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from airflow_provider_kitops.evidence.statement import ResourceDescriptor


def result_predicate(
    result: Literal["PASSED", "WARNED", "FAILED"],
    *,
    configuration: Sequence[ResourceDescriptor],
    url: str = "",
    passed: Sequence[str] = (),
    warned: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """A predicate of type ``TEST_RESULT``.

    :param result: ``WARNED`` for a test that could not tell.
    :param configuration: everything that the result depends on: policy, report, item set, each with its digest.
    :param url: where the run can be looked at.
    :param passed: names of the tests that passed.
    :param warned: names of the tests that warned.
    :param failed: names of the tests that failed.
    """
    value: dict[str, Any] = {"result": result, "configuration": [one.to_json() for one in configuration]}
    if url:
        value["url"] = url
    for key, names in (("passedTests", passed), ("warnedTests", warned), ("failedTests", failed)):
        if names:
            value[key] = list(names)
    return value
