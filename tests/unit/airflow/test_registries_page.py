"""The page about registries says what is so: its connections can be used, its tables are the code's."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection

from airflow_provider_kitops.hooks.kitops import store_config
from airflow_provider_kitops.oci import _retry, errors
from airflow_provider_kitops.oci._retry import Retry, RetryPolicy
from airflow_provider_kitops.oci.credentials import find_credentials
from airflow_provider_kitops.oci.store import Store

TEXT = (Path(__file__).parents[3] / "docs" / "registries.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", TEXT, re.M | re.S)]
CONNECTIONS = [each for each in EXAMPLES if "conn_type" in each]


@pytest.mark.parametrize("example", CONNECTIONS, ids=lambda example: example["host"])
def test_each_connection_can_be_used(example: dict[str, Any]) -> None:
    config = store_config(Connection(conn_id="x", **{**example, "extra": json.dumps(example.get("extra", {}))}))
    assert config.registry == example["host"]
    assert (config.username, config.password) == (example.get("login", ""), example.get("password", ""))
    extra = example.get("extra", {})
    assert config.namespace == extra.get("namespace", "")
    if "client_cert" not in extra:
        with Store(config) as store:
            assert store.reference("demo/net:v1").registry == example["host"]


def test_the_config_file_names_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [config] = [each for each in EXAMPLES if "conn_type" not in each]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for registry, helper in config["credHelpers"].items():
        program = tmp_path / f"docker-credential-{helper}"
        program.write_text(f'#!/bin/sh\necho \'{{"Username": "{helper}", "Secret": "s"}}\'\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert find_credentials(registry, tmp_path).username == helper


def test_every_error_is_told_with_what_it_is_worth() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (yes|no) \| (\d+) \|$", TEXT, re.M)
    told = {name: (worth == "yes", int(code)) for names, worth, code in rows for name in re.findall(r"\w+", names)}
    known = {
        name: (kind.transient, kind.exit_code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.KitopsError) and kind is not errors.KitopsError
    }
    assert told == known


def test_the_pauses_are_those_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_retry, "sleep_using_event", lambda event: pauses.append)

    def work() -> None:
        raise errors.RegistryUnavailable("No.")

    for _ in range(20):
        with pytest.raises(errors.RegistryUnavailable):
            Retry(RetryPolicy(), threading.Event()).call(work)
    told = re.search(r"up to (\d+) times, after pauses of (.*) seconds, each with up to (.*) more", TEXT)
    assert told is not None
    shortest = [float(each) for each in re.split(", | and ", told[2])]
    assert len(shortest) == int(told[1]) - 1
    for pause, least in zip(pauses, shortest * 20, strict=True):
        assert least <= pause <= least + float(told[3])
    assert RetryPolicy().patience == 60  # "up to a minute"
