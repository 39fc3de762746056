"""What operators run: any program, or a reference program. Where they run it is another module's business."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import settings_of, texts_of
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators._settings import check_settings

if TYPE_CHECKING:
    from pydantic import BaseModel

    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.workload.spec import WorkloadSpec


class ProgramOperator(KitopsBaseOperator):
    """Base of the operators that run a program which reads ModelKits and writes one."""

    @abstractmethod
    def _spec(self, store: Store, **more: Any) -> WorkloadSpec:
        """The workload.

        :param more: what depends on where it runs: the specification's ``image`` and ``resources``.
        """

    def _pin(self, store: Store, value: ReferenceLike, argument: str) -> str:
        """Resolve a tag, once: from here on only the digest counts."""
        pinned, _ = store.resolve(reference_text(value, argument))
        return str(pinned)


class AnyProgram(ProgramOperator):
    """Takes the arguments of a program of the user's."""

    template_fields: Sequence[str] = ("inputs", "command", "config", "destination", "tags", "kitops_conn_id")

    def __init__(
        self,
        *,
        inputs: Mapping[str, ReferenceLike],
        command: Sequence[str],
        destination: str,
        kitfile: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.command = command
        self.destination = destination
        self.kitfile = kitfile
        self.config = config
        self.tags = tags
        self.env = env

    def _spec(self, store: Store, **more: Any) -> WorkloadSpec:
        from airflow_provider_kitops.workload.spec import WorkloadSpec

        inputs = settings_of(self.inputs, "inputs", required=True)
        output = _destination(self.destination, self.tags)
        return WorkloadSpec.of(
            inputs={name: self._pin(store, value, f"inputs[{name!r}]") for name, value in inputs.items()},
            command=texts_of(self.command, "command", single=False),
            config=settings_of(self.config, "config"),
            output={**output, "kitfile": settings_of(self.kitfile, "kitfile", required=True)},
            env=settings_of(self.env, "env"),
            **more,
        )


class _ReferenceProgram(ProgramOperator):
    """What the operators of the reference programs take alike."""

    template_fields: Sequence[str] = (
        "destination",
        "config",
        "tags",
        "name",
        "version",
        "description",
        "kitops_conn_id",
    )

    def __init__(
        self,
        *,
        destination: str,
        config: Mapping[str, Any],
        tags: Sequence[str] | None = None,
        name: str = "",
        version: str = "",
        description: str = "",
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_settings(config, "config", self.task_id, self._settings())
        self.destination = destination
        self.config = config
        self.tags = tags
        self.name = name
        self.version = version
        self.description = description
        self.env = env

    @staticmethod
    @abstractmethod
    def _settings() -> type[BaseModel]:
        """The program's settings."""

    def _output(self) -> dict[str, Any]:
        destination = _destination(self.destination, self.tags)
        return {
            "output": destination["reference"],
            "config": settings_of(self.config, "config"),
            "tags": destination["tags"],
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "env": settings_of(self.env, "env"),
        }


class FineTune(_ReferenceProgram):
    """Takes the arguments of the program ``finetune``."""

    template_fields: Sequence[str] = ("base", "dataset", *_ReferenceProgram.template_fields)

    def __init__(self, *, base: ReferenceLike, dataset: ReferenceLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base
        self.dataset = dataset

    @staticmethod
    def _settings() -> type[BaseModel]:
        from airflow_provider_kitops.workload.finetune.config import FineTuneConfig

        return FineTuneConfig

    def _spec(self, store: Store, **more: Any) -> WorkloadSpec:
        from airflow_provider_kitops.workload.programs import finetune_spec

        return finetune_spec(
            base=self._pin(store, self.base, "base"),
            dataset=self._pin(store, self.dataset, "dataset"),
            **self._output(),
            **more,
        )


class Generate(_ReferenceProgram):
    """Takes the arguments of the program ``generate``."""

    template_fields: Sequence[str] = ("model", "items", *_ReferenceProgram.template_fields)

    def __init__(self, *, model: ReferenceLike, items: ReferenceLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.items = items

    @staticmethod
    def _settings() -> type[BaseModel]:
        from airflow_provider_kitops.workload.generate.config import GenerateConfig

        return GenerateConfig

    def _spec(self, store: Store, **more: Any) -> WorkloadSpec:
        from airflow_provider_kitops.workload.programs import generate_spec

        return generate_spec(
            model=self._pin(store, self.model, "model"),
            items=self._pin(store, self.items, "items"),
            **self._output(),
            **more,
        )


def _destination(destination: Any, tags: Any) -> dict[str, Any]:
    repository, found = split_reference(reference_text(destination, "destination"), tags, "destination")
    return {"reference": ":".join((repository, *found[:1])), "tags": found[1:]}
