"""Connections: the store of ModelKits, and the endpoint of a judge."""
