"""``python -m airflow_provider_kitops.workload.generate``: answer the items in the inputs with the model there.

Writes ``predictions.jsonl``, ``metrics.json`` and ``config.yaml`` to the output directory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from airflow_provider_kitops.workload.generate.config import GenerateConfig
from airflow_provider_kitops.workload.program import Directories, run_program
from airflow_provider_kitops.workload.settings import load_settings
from airflow_provider_kitops.workload.usage import Usage

_ABOUT = (__doc__ or "").partition(": ")[2]


def _main(directories: Directories, arguments: Sequence[str]) -> None:
    config = load_settings(GenerateConfig, arguments, directories.config)
    from airflow_provider_kitops.workload.generate.predict import generate

    generate(config, directories)


if __name__ == "__main__":
    sys.exit(run_program(_main, usage=Usage("airflow_provider_kitops.workload.generate", _ABOUT, GenerateConfig)))
