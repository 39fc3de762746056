"""Run programs that read ModelKits and write one, as Jobs of a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_kitops.operators._jobs import KubernetesProgramOperator
from airflow_provider_kitops.operators._programs import AnyProgram, FineTune, Generate

_OWN_FIELDS = ("image", "job", "kubernetes_conn_id", "signing_key")


class WorkloadKubernetesOperator(KubernetesProgramOperator, AnyProgram):
    """
    Run any program that reads ModelKits and writes one, as a Job of a Kubernetes cluster.

    The Job's pod fetches the inputs, runs the program's image, and publishes what it wrote, with provenance; weights
    never pass through the worker. The program finds its inputs in ``/in/NAME``, its settings in ``/config``, writes its
    result to ``/out`` and may keep checkpoints in ``/checkpoints``; it knows nothing of registries and gets none of
    their credentials. A pod that is evicted or preempted is started again, and one whose node is lost when that node is
    back or removed. A worker or triggerer that dies leaves the Job running, and the next one goes on with it. A task
    that is marked, cleared or timed out ends it, and so does one that fails without another try to come.

    A Job that fails raises an exception of ``airflow_provider_kitops.operators.outcomes``: ``JobFailedForGood`` (an
    ``AirflowFailException``) where a retry would fail the same way, ``JobFailed`` (an ``AirflowException``) where it
    may not, and ``JobTimedOut`` (an ``AirflowTaskTimeout``, and so a ``BaseException``) where the Job was ended because
    the task's ``execution_timeout`` was over. All have the attribute ``outcome``, and the XCom ``failure`` tells the
    same.

    :param inputs: references by name, or outputs of other tasks (templated).
    :param command: program and arguments (templated).
    :param destination: repository of the result, with a tag if one is to be set (templated).
    :param kitfile: the result's Kitfile as a mapping; ``{inputs.NAME}`` in any text stands for that input's reference.
    :param config: the program's settings; plain JSON values (templated).
    :param tags: further tags of the result (templated).
    :param env: further environment variables. They become part of the result's provenance: no place for secrets.
    :param image: image of the program; ``None`` means what ``job`` says (templated).
    :param job: how the Job is made and how long it is waited for, as a mapping of the fields of ``JobSettings``:
        GPUs, memory, node placement, volumes, deadlines, clean-up. They go over those of the option ``[kitops] job``.
        An unknown name is an error where the DAG is read (templated).
    :param kubernetes_conn_id: the cluster; the default is the cluster that the worker itself runs in (templated).
    :param signing_key: path, on the worker, of a private key to sign the provenance with (templated).
    :param deferrable: wait in the triggerer and hold no worker.
    :param kitops_conn_id: where the ModelKits are: a registry that the pods can reach (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` from the end of fetching to the
        begin of publishing, the digest of the attached ``provenance``, and the last ``progress`` that it told.
    """

    template_fields: Sequence[str] = (*AnyProgram.template_fields, *_OWN_FIELDS)


class FineTuneKubernetesOperator(KubernetesProgramOperator, FineTune):
    """
    Fine-tune a base model in a Kubernetes cluster with the reference program ``finetune`` (LoRA; QLoRA on a GPU).

    The result is a ModelKit with the adapter, whose Kitfile names the base by digest. It runs as
    ``WorkloadKubernetesOperator`` does. On SIGTERM the program writes a checkpoint; with a volume for ``checkpoints``
    in ``job``, the pod that comes after goes on at that step.

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
    :param image: image of the program; ``None`` means what ``job`` says (templated).
    :param job: how the Job is made and how long it is waited for, as a mapping of the fields of ``JobSettings``:
        GPUs, memory, node placement, volumes, deadlines, clean-up. They go over those of the option ``[kitops] job``.
        An unknown name is an error where the DAG is read (templated).
    :param kubernetes_conn_id: the cluster; the default is the cluster that the worker itself runs in (templated).
    :param signing_key: path, on the worker, of a private key to sign the provenance with (templated).
    :param deferrable: wait in the triggerer and hold no worker.
    :param kitops_conn_id: where the ModelKits are: a registry that the pods can reach (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` from the end of fetching to the
        begin of publishing, the digest of the attached ``provenance``, and the last ``progress`` that it told.
    """

    template_fields: Sequence[str] = (*FineTune.template_fields, *_OWN_FIELDS)


class GenerateKubernetesOperator(KubernetesProgramOperator, Generate):
    """
    Let a model answer every item of a dataset in a Kubernetes cluster, with the reference program ``generate``.

    It runs as ``WorkloadKubernetesOperator`` does.

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
    :param image: image of the program; ``None`` means what ``job`` says (templated).
    :param job: how the Job is made and how long it is waited for, as a mapping of the fields of ``JobSettings``:
        GPUs, memory, node placement, volumes, deadlines, clean-up. They go over those of the option ``[kitops] job``.
        An unknown name is an error where the DAG is read (templated).
    :param kubernetes_conn_id: the cluster; the default is the cluster that the worker itself runs in (templated).
    :param signing_key: path, on the worker, of a private key to sign the provenance with (templated).
    :param deferrable: wait in the triggerer and hold no worker.
    :param kitops_conn_id: where the ModelKits are: a registry that the pods can reach (templated).
    :return: the reference dictionary, with the program's ``metrics``, the ``seconds`` from the end of fetching to the
        begin of publishing, the digest of the attached ``provenance``, and the last ``progress`` that it told.
    """

    template_fields: Sequence[str] = (*Generate.template_fields, *_OWN_FIELDS)
