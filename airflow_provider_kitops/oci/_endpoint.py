"""The addresses and scopes of one repository at a registry."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_kitops.oci._http import RegistryClient


@dataclass(frozen=True)
class Endpoint:
    """One repository, as the requests about it see it.

    :param client: the registry.
    :param repository: slash-separated name.
    """

    client: RegistryClient
    repository: str

    @property
    def name(self) -> str:
        """``registry/repository``, for messages."""
        return f"{self.client.registry}/{self.repository}"

    def path(self, *parts: str) -> str:
        """An address below the repository."""
        return "/".join(("/v2", self.remote, *parts))

    def scope(self, *actions: str) -> str:
        """What a request needs: ``repository:<name>:<actions>``."""
        return f"repository:{self.remote}:{','.join(actions)}"

    @property
    def pull(self) -> str:
        """The scope of reading."""
        return self.scope("pull")

    @property
    def push(self) -> str:
        """The scope of writing."""
        return self.scope("pull", "push")

    @property
    def delete(self) -> str:
        """The scope of deleting."""
        return self.scope("delete", "pull", "push")

    @property
    def remote(self) -> str:
        """The repository's name as the registry knows it."""
        # The hub keeps repositories of one name part below "library".
        hub = self.client.registry == "docker.io" and "/" not in self.repository
        return f"library/{self.repository}" if hub else self.repository
