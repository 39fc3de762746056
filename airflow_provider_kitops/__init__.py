"""Fine-tune, judge and promote ModelKits from Airflow."""

__version__ = "0.1.0"
