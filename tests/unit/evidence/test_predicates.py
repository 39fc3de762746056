from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_provider_kitops.evidence.provenance import ResourceDescriptor, slsa_provenance
from airflow_provider_kitops.evidence.result import result_predicate
from airflow_provider_kitops.oci.errors import InvalidInput

DATA = ResourceDescriptor(name="data", uri="oci://demo/data", digest="sha256:" + "d" * 64)


def test_provenance_says_how_it_was_made_and_from_what():
    assert slsa_provenance(
        build_type="https://example.com/finetune/v1",
        external_parameters={"seed": 1},
        resolved_dependencies=[DATA],
        builder_id="https://example.com/builder",
        started_on=datetime(2026, 1, 2, 3, 4, 5, 999, tzinfo=UTC),
        finished_on=datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        internal_parameters={"threads": 2},
        invocation_id="run-1",
        byproducts=[DATA],
    ) == {
        "buildDefinition": {
            "buildType": "https://example.com/finetune/v1",
            "externalParameters": {"seed": 1},
            "internalParameters": {"threads": 2},
            "resolvedDependencies": [DATA.to_json()],
        },
        "runDetails": {
            "builder": {"id": "https://example.com/builder"},
            "metadata": {
                "invocationId": "run-1",
                "startedOn": "2026-01-02T03:04:05Z",
                "finishedOn": "2026-01-02T03:04:05Z",
            },
            "byproducts": [DATA.to_json()],
        },
    }


def test_provenance_leaves_out_what_nobody_told():
    predicate = slsa_provenance(build_type="t", external_parameters={}, resolved_dependencies=[], builder_id="b")
    assert predicate["runDetails"] == {"builder": {"id": "b"}}
    assert predicate["buildDefinition"]["resolvedDependencies"] == []


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(InvalidInput, match="no time zone"):
        slsa_provenance(
            build_type="t",
            external_parameters={},
            resolved_dependencies=[],
            builder_id="b",
            started_on=datetime(2026, 1, 1),
        )


def test_provenance_without_a_builder_is_refused():
    with pytest.raises(InvalidInput, match="builder"):
        slsa_provenance(build_type="t", external_parameters={}, resolved_dependencies=[], builder_id="")


def test_a_test_result_lists_what_it_depends_on():
    assert result_predicate("FAILED", configuration=[DATA], url="https://runs/1", failed=["better"]) == {
        "result": "FAILED",
        "configuration": [DATA.to_json()],
        "url": "https://runs/1",
        "failedTests": ["better"],
    }
