"""The whole flow on one machine: ``make demo`` and ``make up``."""
