"""A workload as a Kubernetes Job: what is made of it, what it waits for, and how it ended. Imports no client."""
