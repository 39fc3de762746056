"""Run programs that read ModelKits and write one, on this machine: fine-tuning, generation, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import require
from airflow_provider_kitops.operators._base import remove_scratch, scratch_directory, signer
from airflow_provider_kitops.operators._programs import AnyProgram, FineTune, Generate, ProgramOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_OWN_FIELDS = ("scratch", "signing_key")


class _LocalOperator(ProgramOperator):
    """Runs a workload as a subprocess, and keeps its scratch directory until it has succeeded."""

    _libraries: Sequence[str] = ()

    def __init__(
        self, *, scratch: str | Path | None = None, signing_key: str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scratch = scratch
        self.signing_key = signing_key

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kitops.workload.runner import WorkloadResult, run_local

        # Said here, before inputs are fetched; the program's own ImportError would come after them.
        require("The reference programs", "workload", *self._libraries)
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

    def _log_step(self, step: str) -> None:
        self.log.info("Step: %s", step)

    def _log_line(self, line: str) -> None:
        from airflow_provider_kitops.workload.progress import parse_progress

        self.log.info("%s", parse_progress(line) or line)


class _LocalReferenceProgram(_LocalOperator):
    _libraries = ("torch", "transformers", "peft", "trl")


class WorkloadLocalOperator(_LocalOperator, AnyProgram):
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

    template_fields: Sequence[str] = (*AnyProgram.template_fields, *_OWN_FIELDS)


class FineTuneLocalOperator(_LocalReferenceProgram, FineTune):
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

    template_fields: Sequence[str] = (*FineTune.template_fields, *_OWN_FIELDS)


class GenerateLocalOperator(_LocalReferenceProgram, Generate):
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

    template_fields: Sequence[str] = (*Generate.template_fields, *_OWN_FIELDS)
