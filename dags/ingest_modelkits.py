"""Pack the folders that `champion_challenger` starts from: base model, datasets and judge."""

from __future__ import annotations

from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_kitops.operators.pack import KitPackOperator

MODEL = {"manifestVersion": "1.0.0", "package": {"name": "base"}, "model": {"name": "base", "path": "."}}
JUDGE = {"manifestVersion": "1.0.0", "package": {"name": "judge"}, "model": {"name": "judge", "path": "."}}
DATASET = {
    "manifestVersion": "1.0.0",
    "package": {"name": "dataset"},
    "datasets": [{"name": name, "path": f"{name}.jsonl"} for name in ("train", "items", "pairs")],
}


@dag(
    schedule=None,
    render_template_as_native_obj=True,
    tags=["kitops"],
    doc_md=__doc__,
    params={
        "base": Param("/data/base", type="string", description="Folder with the base model"),
        "datasets": Param({"latest": "/data/dataset"}, type="object", description="Tag: folder with the three files"),
        "judge": Param(None, type=["string", "null"], description="Folder with a GGUF to serve as the judge"),
    },
)
def ingest_modelkits() -> None:
    KitPackOperator(task_id="base", context_directory="{{ params.base }}", reference="news/base:latest", kitfile=MODEL)

    @task
    def datasets() -> list[dict[str, str]]:
        folders = get_current_context()["params"]["datasets"]
        return [{"context_directory": folder, "reference": f"news/dataset:{tag}"} for tag, folder in folders.items()]

    KitPackOperator.partial(task_id="dataset", kitfile=DATASET).expand_kwargs(datasets())

    @task.short_circuit
    def has_judge() -> bool:
        return bool(get_current_context()["params"]["judge"])

    has_judge() >> KitPackOperator(
        task_id="judge", context_directory="{{ params.judge }}", reference="news/judge:latest", kitfile=JUDGE
    )


ingest_modelkits()
