"""Run programs that read ModelKits and write one, on this machine: fine-tuning, generation, or any other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._arguments import settings_of, texts_of
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import require
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text, split_reference
from airflow_provider_kitops.operators._base import KitopsBaseOperator, remove_scratch, scratch_directory, signer
from airflow_provider_kitops.operators._settings import check_settings

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import BaseModel

    from airflow_provider_kitops.oci.store import Store
    from airflow_provider_kitops.workload.spec import WorkloadSpec


class _LocalOperator(KitopsBaseOperator):
    """Runs a workload as a subprocess, and keeps its scratch directory until it has succeeded."""

    def __init__(
        self, *, scratch: str | Path | None = None, signing_key: str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scratch = scratch
        self.signing_key = signing_key

    @abstractmethod
    def _spec(self, store: Store) -> WorkloadSpec: ...

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.workload.runner import WorkloadResult, run_local

        key = signer(self.signing_key)
        scratch = scratch_directory(context, self.scratch)
        answer: dict[str, Any] = {}
        with self.hook.store() as store:

            def read_back(result: WorkloadResult) -> None:
                answer.update(
                    describe(
                        store,
                        result.reference,
                        tags=result.tags,
                        metrics=dict(result.metrics),
                        seconds=result.seconds,
                        provenance=result.provenance,
                    )
                )

            spec = self._spec(store)
            self.log.info("Workload %s in %s", spec.digest, scratch)
            run_local(
                spec,
                store,
                scratch,
                on_line=self._log_line,
                on_step=self._log_step,
                on_published=read_back,
                signer=key,
            )
        remove_scratch(scratch)
        return answer

    def _pin(self, store: Store, value: ReferenceLike, argument: str) -> str:
        """Resolve a tag, once: from here on only the digest counts."""
        pinned, _ = store.resolve(reference_text(value, argument))
        return str(pinned)

    def _log_step(self, step: str) -> None:
        self.log.info("Step: %s", step)

    def _log_line(self, line: str) -> None:
        from airflow_provider_kitops.workload.progress import parse_progress

        self.log.info("%s", parse_progress(line) or line)


def _destination(destination: Any, tags: Any) -> dict[str, Any]:
    repository, found = split_reference(reference_text(destination, "destination"), tags, "destination")
    return {"reference": ":".join((repository, *found[:1])), "tags": found[1:]}


class WorkloadLocalOperator(_LocalOperator):
    """
    Run any program that reads ModelKits and writes one, as a subprocess of this task.

    The program finds its inputs in ``$KITOPS_INPUTS/NAME``, its settings in ``$KITOPS_CONFIG``, writes its result to
    ``$KITOPS_OUTPUT`` and may keep checkpoints in ``$KITOPS_CHECKPOINTS``. It is ended with the task. A task that was
    killed goes on where the program's last checkpoint is when it is cleared or retried on the same machine. Its working
    directory is one of the task's own and holds nothing of the DAG's: give the program as text (``python -c``), as an
    installed module (``python -m``), by an absolute path, or in an input. ``python`` is the worker's. It gets the
    worker's environment without Airflow's and this package's own variables, which may hold secrets.

    :param inputs: references by name, or outputs of other tasks (templated).
    :param command: program and arguments (templated).
    :param destination: repository of the result, with a tag if one is to be set (templated).
    :param kitfile: the result's Kitfile as a mapping; ``{inputs.NAME}`` in any text stands for that input's reference.
    :param config: the program's settings; plain JSON values (templated).
    :param tags: further tags of the result (templated).
    :param env: further environment variables. They become part of the result's provenance: no place for secrets.
    :param scratch: directory for what is kept between tries; ``None`` means the option ``[kitops]
        scratch_directory`` (templated).
    :param signing_key: path of a private key to sign the provenance with (templated).
    :param kitops_conn_id: where the ModelKits are (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` it ran, and the digest of the
        attached ``provenance``.
    """

    template_fields: Sequence[str] = (
        "inputs",
        "command",
        "config",
        "destination",
        "tags",
        "scratch",
        "signing_key",
        "kitops_conn_id",
    )

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

    def _spec(self, store: Store) -> WorkloadSpec:
        from airflow_provider_kitops.workload.spec import WorkloadSpec

        inputs = settings_of(self.inputs, "inputs", required=True)
        output = _destination(self.destination, self.tags)
        return WorkloadSpec.of(
            inputs={name: self._pin(store, value, f"inputs[{name!r}]") for name, value in inputs.items()},
            command=texts_of(self.command, "command", single=False),
            config=settings_of(self.config, "config"),
            output={**output, "kitfile": settings_of(self.kitfile, "kitfile", required=True)},
            env=settings_of(self.env, "env"),
        )


class _ReferenceProgramOperator(_LocalOperator):
    """What the operators of the reference programs take alike."""

    template_fields: Sequence[str] = (
        "destination",
        "config",
        "tags",
        "name",
        "version",
        "description",
        "scratch",
        "signing_key",
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
        # Said here, before inputs are fetched; the program's own ImportError would come after them.
        require("The reference programs", "workload", "torch", "transformers", "peft", "trl")
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


class FineTuneLocalOperator(_ReferenceProgramOperator):
    """
    Fine-tune a base model on this machine with the reference program ``finetune`` (LoRA; QLoRA on a GPU).

    The result is a ModelKit with the adapter, whose Kitfile names the base by digest. A task that was killed goes on
    from its last checkpoint when it is cleared or retried on the same machine.

    :param base: the base model's ModelKit: a reference, or the output of another task (templated).
    :param dataset: the ModelKit with the training data (templated).
    :param destination: repository of the result, with a tag if one is to be set (templated).
    :param config: settings of the program. An unknown name, or a value that cannot be used and is no template, is an
        error where the DAG is read (templated).
    :param tags: further tags of the result (templated).
    :param name: the result's name in its Kitfile (templated).
    :param version: its version (templated).
    :param description: its description (templated).
    :param env: further environment variables. They become part of the result's provenance: no place for secrets.
    :param scratch: directory for what is kept between tries; ``None`` means the option ``[kitops]
        scratch_directory`` (templated).
    :param signing_key: path of a private key to sign the provenance with (templated).
    :param kitops_conn_id: where the ModelKits are (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` it ran, and the digest of the
        attached ``provenance``.
    """

    template_fields: Sequence[str] = ("base", "dataset", *_ReferenceProgramOperator.template_fields)

    def __init__(self, *, base: ReferenceLike, dataset: ReferenceLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base
        self.dataset = dataset

    @staticmethod
    def _settings() -> type[BaseModel]:
        from airflow_provider_kitops.workload.finetune.config import FineTuneConfig

        return FineTuneConfig

    def _spec(self, store: Store) -> WorkloadSpec:
        from airflow_provider_kitops.workload.programs import finetune_spec

        return finetune_spec(
            base=self._pin(store, self.base, "base"),
            dataset=self._pin(store, self.dataset, "dataset"),
            **self._output(),
        )


class GenerateLocalOperator(_ReferenceProgramOperator):
    """
    Let a model answer every item of a dataset on this machine, with the reference program ``generate``.

    :param model: the ModelKit whose answers are wanted: fine-tuned, or an untuned base; a reference, or the output of
        another task (templated).
    :param items: the ModelKit with the items (templated).
    :param destination: repository of the predictions, with a tag if one is to be set (templated).
    :param config: settings of the program. An unknown name, or a value that cannot be used and is no template, is an
        error where the DAG is read (templated).
    :param tags: further tags of the result (templated).
    :param name: the result's name in its Kitfile (templated).
    :param version: its version (templated).
    :param description: its description (templated).
    :param env: further environment variables. They become part of the result's provenance: no place for secrets.
    :param scratch: directory for what is kept between tries; ``None`` means the option ``[kitops]
        scratch_directory`` (templated).
    :param signing_key: path of a private key to sign the provenance with (templated).
    :param kitops_conn_id: where the ModelKits are (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` it ran, and the digest of the
        attached ``provenance``.
    """

    template_fields: Sequence[str] = ("model", "items", *_ReferenceProgramOperator.template_fields)

    def __init__(self, *, model: ReferenceLike, items: ReferenceLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.items = items

    @staticmethod
    def _settings() -> type[BaseModel]:
        from airflow_provider_kitops.workload.generate.config import GenerateConfig

        return GenerateConfig

    def _spec(self, store: Store) -> WorkloadSpec:
        from airflow_provider_kitops.workload.programs import generate_spec

        return generate_spec(
            model=self._pin(store, self.model, "model"), items=self._pin(store, self.items, "items"), **self._output()
        )
