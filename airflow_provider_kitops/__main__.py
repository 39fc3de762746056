"""``python -m airflow_provider_kitops`` is the command ``modelkit``."""

import sys

from airflow_provider_kitops.cli import main

if __name__ == "__main__":
    sys.exit(main())
