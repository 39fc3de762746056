"""Copy the champion of one connection, with all its evidence, to another one, and tell the asset of the release."""

from __future__ import annotations

from airflow.sdk import Asset, Param, dag

from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.tag import KitTagOperator


@dag(
    schedule=None,
    max_active_runs=1,
    tags=["kitops"],
    doc_md=__doc__,
    params={
        "version": Param("2026.11", type="string", description="Tag of the release; it never moves"),
        "source": Param("kitops_default", type="string", description="Connection to copy from"),
        "destination": Param("kitops_production", type="string", description="Connection to copy to"),
    },
)
def release_modelkit() -> None:
    copied = KitCopyOperator(
        task_id="copy",
        source="news/classifier:champion",
        source_conn_id="{{ params.source }}",
        destination="news/classifier:{{ params.version }}",
        destination_conn_id="{{ params.destination }}",
        referrers=True,
    )
    # By digest: whatever the champion is meanwhile, this is what was copied.
    KitTagOperator(
        task_id="latest",
        reference=copied.output,
        tags="latest",
        kitops_conn_id="{{ params.destination }}",
        outlets=[Asset("news-classifier-release")],
    )


release_modelkit()
