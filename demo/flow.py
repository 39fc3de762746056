"""The flow of the demo: three challengers, of which two should win, then back and forward again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_kitops.evidence.attach import find, read_file
from airflow_provider_kitops.oci.store import Store, StoreConfig
from demo import assets
from demo.dataset import Row, Sizes, read_news, read_own, write_datasets
from demo.local_airflow import JUDGE_CONNECTION, Airflow, DemoFailed, OwnJudge

MODEL = "news/classifier"

#: Newsgroup: what the models call it.
GROUPS = {
    "rec.sport.hockey": "hockey",
    "sci.space": "space",
    "talk.politics.guns": "guns",
    "sci.med": "medicine",
    "rec.autos": "cars",
    "soc.religion.christian": "religion",
}
SIZES = Sizes(train=120, items=80, pairs=30, words=70)


@dataclass(frozen=True)
class Round:
    """One challenger.

    :param title: what it is, for people.
    :param dataset: tag of the dataset it is trained on.
    :param steps: optimizer steps.
    """

    title: str
    dataset: str
    steps: int


ROUNDS = (
    Round("a first challenger, trained on two thirds of the topics, against the untuned base", "some", 16),
    Round("one whose labels were shuffled, against the champion", "shuffled", 10),
    Round("a challenger trained longer and on all topics, against the champion", "latest", 36),
)


@dataclass(frozen=True)
class Options:
    """What the demo is run with.

    :param home: directory for everything it writes.
    :param seed: of data, training and judge.
    :param base: a model folder of the user's own, or a GGUF file.
    :param dataset: a data file of the user's own with the columns ``text`` and ``label``.
    :param judge: an endpoint to judge with, instead of the model that is downloaded.
    """

    home: Path
    seed: int = 0
    base: Path | None = None
    dataset: Path | None = None
    judge: OwnJudge | None = None


class Demo:
    """Everything below ``options.home``; ``prepare`` comes first."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.home = options.home.absolute()
        self.layout = self.home / "layout"
        self.airflow = Airflow(self.home / "airflow", self.layout)
        self._begun = time.monotonic()

    def prepare(self) -> None:
        """Fetch models and texts, draw the dataset, start an empty Airflow and pack the ModelKits."""
        self._claim()
        self._title("Preparing: models, texts, an Airflow of its own")
        base = self.options.base
        if base is not None and not base.exists():
            raise DemoFailed(f"There is no model folder or file {base}.", hint="Give one with --base.")
        # Before the models: a column that is missing is told at once, not after a download of 600 MB.
        train, test = self._rows()
        folder, judge = self._folders()
        for stale in ("layout", "airflow", "scratch", "contexts", "logs", "reports"):
            shutil.rmtree(self.home / stale, ignore_errors=True)
        contexts = self.home / "contexts"
        write_datasets(contexts, train, test, SIZES, self.options.seed)
        self.airflow.prepare(self.options.judge)
        self._title("Packing base model, datasets and judge (DAG ingest_modelkits)")
        params = {
            "base": str(folder),
            "judge": str(judge) if judge else None,
            "datasets": {
                "latest": str(contexts / "all"),
                "some": str(contexts / "some"),
                "shuffled": str(contexts / "shuffled"),
            },
        }
        self._run("ingest_modelkits", params, "ingest")
        self._marker.write_text(self._described())

    def rounds(self) -> list[dict[str, Any]]:
        """Run the three challengers; what came of each."""
        results = []
        for number, each in enumerate(ROUNDS, 1):
            self._title(f"Run {number} of {len(ROUNDS)}: {each.title} (DAG champion_challenger)")
            self._run("champion_challenger", self.params(each), f"run-{number}")
            results.append(self._result(each, number))
            self._say(f"    {results[-1]['outcome']}: {results[-1]['reason']}")
        return results

    def params(self, each: Round) -> dict[str, Any]:
        """The parameters of ``champion_challenger`` for one challenger."""
        params: dict[str, Any] = {
            "model": MODEL,
            "dataset": f"news/dataset:{each.dataset}",
            "steps": each.steps,
            "seed": self.options.seed,
        }
        if self.options.judge:
            params |= {"judge_model": None, "llm_conn_id": JUDGE_CONNECTION}
        return params

    def back_and_forward(self) -> tuple[str, str]:
        """Roll back, and forward again; the digests that the champion had."""
        self._title("Rolling the champion back, and forward again (modelkit rollback)")
        champion, newest = f"{MODEL}:champion", self.digest("champion")
        back = self._modelkit("rollback", champion, "--expected", newest, "--json")["digest"]
        self._say(f"    back to     {back}")
        forward = self._modelkit("rollback", champion, "--expected", back, "--to", newest, "--json")["digest"]
        self._say(f"    forward to  {forward}")
        if back == newest or forward != newest:
            raise DemoFailed(f"Rolling back and forward did not lead back to {newest}: {back}, {forward}.")
        return back, forward

    def digest(self, tag: str) -> str:
        """What a tag of the model's repository names."""
        with Store(StoreConfig(layout=self.layout)) as store:
            return store.resolve(f"{MODEL}:{tag}")[1].digest

    @property
    def prepared(self) -> bool:
        """Whether ``prepare`` has come to its end with the same options."""
        return self._marker.is_file() and self._marker.read_text() == self._described()

    @property
    def _marker(self) -> Path:
        return self.home / "prepared"

    def _described(self) -> str:
        """The options in words, without the key."""
        return repr(self.options)

    def _claim(self) -> None:
        """Make sure that nothing of anybody else's is deleted in ``home``."""
        there = {path.name for path in self.home.iterdir()} - {".lock"}
        if there and self._marker.name not in there:
            raise DemoFailed(
                f"{self.home} holds files that are not the demo's.", hint="Give an empty directory with --home."
            )
        self._marker.write_text("not yet")

    def _folders(self) -> tuple[Path, Path | None]:
        """Context directories with the base model and, unless there is an endpoint, the judge."""
        folders = self.home / "models"
        base = self.options.base
        if base is None or base.is_file():
            base = _alone(base or assets.provide(assets.BASE_MODEL), folders / "base")
        judge = None if self.options.judge else _alone(assets.provide(assets.JUDGE_MODEL), folders / "judge")
        return base.absolute(), judge

    def _rows(self) -> tuple[list[Row], list[Row]]:
        if self.options.dataset:
            return read_own(self.options.dataset)
        return read_news(assets.provide_news(), GROUPS)

    def _run(self, dag: str, params: Mapping[str, Any], log: str) -> None:
        self.airflow.run_dag(dag, params, self.home / "logs" / f"{log}.jsonl", self._say)

    def _modelkit(self, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "airflow_provider_kitops", "--layout", str(self.layout), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"modelkit {' '.join(arguments)} failed: {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _result(self, each: Round, number: int) -> dict[str, Any]:
        """What is on record about the challenger: read from the store, as an auditor would."""
        from airflow_provider_kitops.promotion.attest import DECISION_FILE
        from airflow_provider_kitops.promotion.decision import DecisionReport

        with Store(StoreConfig(layout=self.layout)) as store:
            target = store.target(MODEL)
            challenger = target.resolve("challenger")
            files: dict[str, bytes] = {}
            for attestation in find(target, challenger):
                files |= {
                    name: read_file(target, descriptor)
                    for name, descriptor in attestation.files.items()
                    if name in (DECISION_FILE, "report.json", "verdicts.jsonl")
                }
        directory = self.home / "reports" / f"run-{number}"
        directory.mkdir(parents=True)
        for name, data in files.items():
            (directory / name).write_bytes(data)
        decision = DecisionReport.from_bytes(files[DECISION_FILE])
        said = decision.decision
        return {
            "title": each.title,
            "challenger": decision.challenger,
            "outcome": decision.outcome,
            "mean": said.mean,
            "lower": said.lower,
            "upper": said.upper,
            "items": said.n,
            "reason": said.reason,
            "champion": self.digest("champion"),
            "report": str(directory / "report.json"),
        }

    def _title(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        self._say(f"\n[{minutes:02}:{seconds:02}] {text}")

    @staticmethod
    def _say(text: str) -> None:
        print(text, flush=True)


def _alone(file: Path, directory: Path) -> Path:
    """A directory that holds only ``file``, without copying it where the disk allows."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        (directory / file.name).hardlink_to(file)
    except OSError:
        shutil.copyfile(file, directory / file.name)
    return directory
