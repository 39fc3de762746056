"""From ModelKits to a judge's report beside the challenger, and back."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kitops.evidence.attach import attach, find, load, read_named_file
from airflow_provider_kitops.evidence.statement import (
    SLSA_PROVENANCE,
    ResourceDescriptor,
    Statement,
    Subject,
    digest_set,
)
from airflow_provider_kitops.judge.config import JudgeConfig
from airflow_provider_kitops.judge.endpoint import Endpoint
from airflow_provider_kitops.judge.items import Contestant, load_items, load_pairs, load_predictions
from airflow_provider_kitops.judge.local import context_for, serve_gguf
from airflow_provider_kitops.judge.report import Report, Verdict, verdicts_from_bytes, verdicts_to_bytes
from airflow_provider_kitops.judge.run import JudgeProgress, check_sets, judge
from airflow_provider_kitops.modelkit.parents import parents_of
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.descriptor import Descriptor, digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, VerificationFailed
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.target import ProgressHook, Target
from airflow_provider_kitops.promotion.gate import GatePolicy

if TYPE_CHECKING:
    from airflow_provider_kitops.evidence.signing import Signer
    from airflow_provider_kitops.oci.store import Store

logger = logging.getLogger(__name__)

#: Predicate type of the statement that carries a judge's report. A name, not an address.
JUDGE_REPORT = "airflow-provider-kitops:judge-report/v1"

#: What the program ``generate`` calls the model that answers, in its provenance.
_MODEL = "model"

_REPORT, _VERDICTS, _POLICY = "report.json", "verdicts.jsonl", "policy.json"


@dataclass(frozen=True)
class JudgeInputs:
    """What is judged: references, and where in each ModelKit the file is.

    :param challenger: the model that may be promoted.
    :param champion: the model it is compared with.
    :param challenger_predictions: ModelKit with the challenger's answers.
    :param champion_predictions: ModelKit with the champion's.
    :param items: ModelKit with the items.
    :param pairs: ModelKit with the labelled pairs.
    :param items_file: path below the ModelKit's directory.
    :param pairs_file: the same.
    :param predictions_file: the same, in both.
    """

    challenger: str
    champion: str
    challenger_predictions: str
    champion_predictions: str
    items: str
    pairs: str
    items_file: str = "items.jsonl"
    pairs_file: str = "pairs.jsonl"
    predictions_file: str = "predictions.jsonl"


def judge_modelkits(
    store: Store,
    inputs: JudgeInputs,
    *,
    endpoint: Endpoint,
    config: JudgeConfig,
    policy: GatePolicy,
    scratch: Path,
    signer: Signer | None = None,
    on_progress: Callable[[JudgeProgress], None] | None = None,
    on_transfer: ProgressHook | None = None,
) -> tuple[Reference, Report]:
    """Judge, and attach report, verdicts and policy to the challenger.

    Where the predictions have provenance, it must name the contestant that they are credited to.

    :param scratch: directory for the unpacked files and the journal; the journal makes a second call go on.
    :param on_progress: told how far judging is.
    :param on_transfer: told how far unpacking is.
    :return: the attached artifact, by digest, and the report.
    :raises InvalidInput: a ModelKit lacks a file, or a file cannot be used.
    :raises VerificationFailed: predictions are of another model than the one that they are credited to.
    :raises JudgeUnqualified, JudgeUnavailable: as ``judge`` raises them.
    """
    pinned, subject = store.resolve(inputs.challenger)
    _, champion = store.resolve(inputs.champion)
    files = _Files(store, scratch, on_transfer)
    run = judge(
        load_items(files.get(inputs.items, inputs.items_file)),
        champion=_contestant(files, "champion", champion.digest, inputs.champion_predictions, inputs),
        challenger=_contestant(files, "challenger", subject.digest, inputs.challenger_predictions, inputs),
        pairs=load_pairs(files.get(inputs.pairs, inputs.pairs_file)),
        endpoint=endpoint,
        config=config,
        journal=scratch / "journal.jsonl",
        policy=policy.to_json(),
        on_progress=on_progress,
    )
    contents = {
        _REPORT: run.report.to_bytes(),
        _VERDICTS: verdicts_to_bytes(run.verdicts),
        _POLICY: policy.to_bytes(),
    }
    named = [ResourceDescriptor(name=name, digest=digest_of(data)).to_json() for name, data in contents.items()]
    target = store.target(pinned)
    statement = Statement(
        [Subject(target.name, subject.digest)],
        JUDGE_REPORT,
        {"summary": run.report.outcome_row(), "files": named},
    )
    attached = attach(target, subject, statement, signer=signer, files=contents)
    return pinned.at(attached.digest), run.report


def check_inputs(
    store: Store,
    items: str,
    pairs: str | None = None,
    *,
    config: JudgeConfig | None = None,
    items_file: str = "items.jsonl",
    pairs_file: str = "pairs.jsonl",
    on_transfer: ProgressHook | None = None,
) -> None:
    """See that items and pairs can be judged, before hours are spent on the models that are to answer.

    :param items: ModelKit with the items.
    :param pairs: ModelKit with the labelled pairs; None = the same.
    :param config: the judge's settings, which say how many pairs it needs, and whether references.
    :raises InvalidInput: a ModelKit lacks a file, or a file cannot be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = _Files(store, Path(scratch), on_transfer)
        check_sets(
            load_items(files.get(items, items_file)),
            load_pairs(files.get(pairs or items, pairs_file)),
            config or JudgeConfig(),
        )


def read_judged(store: Store, reference: str) -> tuple[Report, list[Verdict], GatePolicy]:
    """Read a report back with its verdicts and the policy that was fixed before it.

    :param reference: what ``judge_modelkits`` attached.
    :raises NotFound: there is no such artifact.
    :raises VerificationFailed: it carries no report, one about another challenger than its subject, or files
        that its statement does not name.
    """
    pinned, descriptor = store.resolve(reference)
    target = store.target(pinned)
    attestation = load(target, descriptor)
    missing = [name for name in (_REPORT, _VERDICTS, _POLICY) if name not in attestation.files]
    if missing:
        raise VerificationFailed(
            f"{pinned} carries no {' and no '.join(missing)}.",
            hint="Give the reference that LLMJudgeOperator returned.",
        )
    named = attestation.statement.predicate.get("files")
    report_data, verdicts, policy = (
        read_named_file(target, attestation, name, named) for name in (_REPORT, _VERDICTS, _POLICY)
    )
    report = Report.from_bytes(report_data)
    if not attestation.statement.names(report.challenger.digest):
        raise VerificationFailed(f"{pinned} carries a report about {report.challenger.digest}, not about its subject.")
    return report, verdicts_from_bytes(verdicts), GatePolicy.from_bytes(policy)


@contextmanager
def local_judge(
    store: Store,
    model: str,
    scratch: Path,
    threads: int,
    on_transfer: ProgressHook | None = None,
    *,
    config: JudgeConfig | None = None,
) -> Iterator[Endpoint]:
    """Serve a GGUF model while the context lasts.

    :param model: absolute path of a GGUF file, or the reference of a ModelKit that holds one.
    :param threads: cores to use.
    :param on_transfer: told how far unpacking is.
    :param config: the judge's settings, which say how long a request can be.
    :raises InvalidInput: the ModelKit holds no GGUF file, or several.
    """
    if Path(model).is_absolute():
        path = Path(model)
    else:
        directory = _Files(store, scratch, on_transfer).directory(model)
        found = sorted(directory.rglob("*.gguf"))
        if len(found) != 1:
            names = ", ".join(str(each.relative_to(directory)) for each in found) or "none"
            raise InvalidInput(f"A judge is one GGUF file; {model} holds {names}.")
        path = found[0]
    with serve_gguf(path, threads=threads, context=context_for(config or JudgeConfig())) as endpoint:
        yield endpoint


def _contestant(files: _Files, who: str, model: str, predictions: str, inputs: JudgeInputs) -> Contestant:
    """One side, with its answers.

    :raises VerificationFailed: the answers are another model's.
    """
    pinned, descriptor = files.store.resolve(predictions)
    _require_answered_by(files.store.target(pinned), descriptor, model, who)
    answers = load_predictions(files.get(str(pinned), inputs.predictions_file))
    return Contestant(model, answers, descriptor.digest)


def _require_answered_by(target: Target, predictions: Descriptor, model: str, who: str) -> None:
    """Compare the predictions' provenance with the contestant that they are credited to.

    Equal answers of two models are one ModelKit, so one statement of several is enough.
    """
    where = f"{target.name}@{predictions.digest}"
    others: set[str] = set()
    for attestation in find(target, predictions, SLSA_PROVENANCE):
        inputs = _inputs(attestation.statement.predicate)
        named = [digest for name, digest in inputs if name == _MODEL]
        # Another program than ours may call its model otherwise.
        if digest_set(model) in (named or [digest for _, digest in inputs]):
            return
        others.update(f"{algorithm}:{value}" for digest in named for algorithm, value in digest.items())
    if others:
        raise VerificationFailed(
            f"The {who}'s predictions {where} are not its own: they were made by {', '.join(sorted(others))}, "
            f"and the {who} is {model}.",
            hint="Give each contestant the predictions that it made; are the two swapped?",
        )
    logger.warning(
        "The %s's predictions %s have no provenance that names a model: that %s made them is not checked.",
        who,
        where,
        model,
    )


def _inputs(predicate: Mapping[str, Any]) -> list[tuple[object, dict[str, Any]]]:
    """Name and digest set of each input with a digest (SLSA provenance, ``resolvedDependencies``)."""
    definition = predicate.get("buildDefinition")
    listed = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    return [
        (one.get("name"), one["digest"])
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("digest"), dict)
    ]


class _Files:
    """Unpacks each ModelKit once."""

    def __init__(self, store: Store, scratch: Path, on_transfer: ProgressHook | None) -> None:
        self.store = store
        self._scratch = scratch
        self._on_transfer = on_transfer

    def directory(self, reference: str) -> Path:
        pinned, descriptor = self.store.resolve(reference)
        directory = self._scratch / "unpacked" / descriptor.digest.replace(":", "-")
        if not directory.exists():
            partial = directory.with_name(directory.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            unpack(
                self.store.target(pinned),
                descriptor.digest,
                partial,
                parents=parents_of(self.store),
                concurrency=self.store.config.concurrency,
                on_progress=self._on_transfer,
            )
            partial.replace(directory)
        return directory

    def get(self, reference: str, file: str) -> Path:
        directory = self.directory(reference)
        path = (directory / file).resolve()
        if not path.is_relative_to(directory.resolve()) or not path.is_file():
            names = sorted(str(each.relative_to(directory)) for each in directory.rglob("*") if each.is_file())
            there = ", ".join(names[:20]) or "nothing"
            if any(path.with_suffix(other).name == Path(name).name for name in names for other in (".csv", ".parquet")):
                there += "; the judge reads JSON Lines only"
            raise InvalidInput(f"{reference} holds no {file}.", hint=f"It holds {there}.")
        return path
