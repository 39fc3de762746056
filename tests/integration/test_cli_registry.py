"""The command against a real registry, without and with a password."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import requests

from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.promotion.promote import promote
from tests.registry import PASSWORD, USERNAME, Registry
from tests.unit.evidence.conftest import make_keys, put_manifest
from tests.unit.promotion.decisions import decision
from tests.unit.test_cli import Command, error_of, shell_blocks


@pytest.fixture
def modelkit(tmp_path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def repository(registry: Registry, request) -> str:
    """A repository of this test's own."""
    return f"{registry.host}/{request.node.name.replace('_', '-')[:80].strip('-').lower()}"


def test_the_examples_of_the_documentation_work(registry, tmp_path):
    script = f'modelkit() {{ "{sys.executable}" -m airflow_provider_kitops "$@"; }}\n' + shell_blocks("sh( registry)?")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script.replace("127.0.0.1:5000", registry.host)], cwd=tmp_path,
        env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "from-registry" / "model.gguf").read_text() == "better weights\n"


def test_a_modelkit_keeps_its_digest_there_and_back(modelkit, repository):
    digest = modelkit.pack("w", "demo/model:v1")
    assert modelkit.pack("w", f"{repository}:direct", "--plain-http") == digest
    assert modelkit.json("push", "demo/model:v1", f"{repository}:v1,latest", "--plain-http")["digest"] == digest
    pulled = modelkit.json("pull", f"{repository}:v1", "pulled:v1", "--plain-http")
    assert (pulled["digest"], pulled["reference"]) == (digest, f"pulled@{digest}")
    assert modelkit.json("copy", f"{repository}:v1", f"{repository}-mirror", "--plain-http")["digest"] == digest
    [kit] = modelkit.json("list", repository, "--plain-http")["modelkits"]
    assert (kit["digest"], kit["tags"]) == (digest, ["direct", "latest", "v1"])
    listed = modelkit.json("list", repository.partition("/")[0] + "/", "--plain-http")["modelkits"]
    assert {f"{repository}", f"{repository}-mirror"} <= {kit["repository"] for kit in listed}


def test_push_with_one_reference_means_the_same_name_on_both_sides(modelkit, repository):
    name = repository.partition("/")[2]
    digest = modelkit.pack("w", f"{name}:v1")
    assert modelkit.json("push", f"{repository}:v1", "--plain-http")["digest"] == digest
    modelkit("remove", f"{name}:v1")
    assert modelkit.json("pull", f"{repository}:v1", "--plain-http")["reference"] == f"{name}@{digest}"


def test_push_with_one_reference_and_several_tags_takes_the_first_of_them(modelkit, repository):
    name = repository.partition("/")[2]
    digest = modelkit.pack("w", f"{name}:v1")
    modelkit.pack("other", f"{name}:latest")
    pushed = modelkit.json("push", f"{repository}:v1,latest", "--plain-http")
    assert (pushed["digest"], pushed["tags"]) == (digest, ["v1", "latest"])
    assert modelkit.json("inspect", f"{repository}:latest", "--plain-http")["digest"] == digest


def test_evidence_travels_with_the_modelkit(modelkit, tmp_path, repository):
    keys = make_keys(tmp_path / "keys", "ed25519")
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    modelkit("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json", "--key", str(keys.private))
    modelkit("push", "demo/model:v1", f"{repository}:v1", "--plain-http", "--referrers")
    answer = modelkit.json("verify", f"{repository}:v1", "--plain-http", "--key", str(keys.public))
    assert [one["predicate_type"] for one in answer["statements"]] == ["t"]
    # This registry has no referrers API; the tag that stands in for it is no ModelKit.
    assert [kit["tags"] for kit in modelkit.json("list", repository, "--plain-http")["modelkits"]] == [["v1"]]


def test_promoted_rolled_back_and_forward_again(modelkit, tmp_path, repository):
    a = modelkit.pack("a", f"{repository}:a", "--plain-http")
    b = modelkit.pack("b", f"{repository}:b", "--plain-http")
    (tmp_path / "first.json").write_bytes(decision(a, None, repository=repository).to_bytes())
    (tmp_path / "second.json").write_bytes(decision(b, a, repository=repository).to_bytes())
    common = ("--tag", "champion", "--plain-http", "--lock-dir", "locks")
    assert modelkit.json("promote", f"{repository}@{a}", "--report", "first.json", *common)["changed"]
    second = ("promote", f"{repository}@{b}", "--expected", a, "--report", "second.json", *common)
    done = modelkit.json(*second)
    assert (done["digest"], done["previous"], done["changed"]) == (b, a, True)
    again = modelkit.json(*second)
    assert (again["statement"], again["history_tag"], again["changed"]) == (
        done["statement"],
        done["history_tag"],
        False,
    )

    back = ("rollback", f"{repository}:champion", "--plain-http", "--lock-dir", "locks")
    assert modelkit.json(*back, "--expected", b)["digest"] == a
    assert modelkit.json(*back, "--expected", b)["changed"] is False
    assert modelkit.json(*back, "--to", b)["digest"] == b
    assert modelkit.json("inspect", f"{repository}:champion", "--plain-http")["digest"] == b
    error_of(modelkit(*second[:2], "--expected", "none", "--report", "second.json", *common, code=6))


def test_promotion_makes_the_same_number_of_requests_whatever_the_size_and_history(
    registry, tmp_path, monkeypatch, repository
):
    sent = []
    send = requests.Session.send
    monkeypatch.setattr(
        requests.Session,
        "send",
        lambda self, request, **more: (sent.append(request.method), send(self, request, **more))[1],
    )
    counts = []
    with Store(StoreConfig(registry=registry.host, plain_http=True)) as store:
        target = store.target(repository)
        last = None
        for size in (1, 1, 5_000_000, 1, 1):
            digest = put_manifest(target, "x" * size + str(last)).digest
            sent.clear()
            decided = decision(digest, last, repository=repository)
            promote(target, digest, "champion", last, decision=decided, lock_dir=tmp_path)
            counts.append(len(sent))
            last = digest
    assert len(set(counts[1:])) == 1
    assert counts[1] <= 40


def test_a_password_opens_and_a_wrong_one_does_not(modelkit, private_registry):
    where = (f"{private_registry.host}/demo/model:v1", "--plain-http")
    modelkit.pack("w", "demo/model:v1")
    error_of(modelkit("push", *where, "--quiet", code=4))
    assert (
        "hunter2" not in modelkit("push", *where, "-u", USERNAME, "--password-stdin", stdin="hunter2\n", code=4).stderr
    )
    done = modelkit("push", *where, "-u", USERNAME, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert PASSWORD not in done.stderr + done.stdout


def test_login_keeps_what_works_and_later_commands_use_it(modelkit, private_registry, tmp_path):
    login = ("login", private_registry.host, "-u", USERNAME, "--password-stdin", "--plain-http")
    refused = error_of(modelkit(*login, stdin="hunter2", code=4))
    assert "hunter2" not in refused
    assert "reach" not in refused
    config = tmp_path / "home" / ".docker" / "config.json"
    assert not config.exists()
    done = modelkit(*login, stdin=PASSWORD)
    assert PASSWORD not in done.stdout + done.stderr
    assert config.stat().st_mode & 0o777 == 0o600
    modelkit.pack("w", f"{private_registry.host}/logged/in:v1", "--plain-http")


def test_login_replaces_what_an_older_client_kept_under_another_name(modelkit, private_registry, tmp_path):
    config = tmp_path / "home" / ".docker" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"auths": {f"https://{private_registry.host}/v1/": {"auth": "YWxpY2U6c3RhbGU="}}}))
    error_of(modelkit("list", f"{private_registry.host}/", "--plain-http", code=4))
    modelkit("login", private_registry.host, "-u", USERNAME, "--password-stdin", "--plain-http", stdin=PASSWORD)
    modelkit("list", f"{private_registry.host}/", "--plain-http")


def test_copying_between_two_registries_uses_what_login_kept_for_each(modelkit, registry, private_registry):
    modelkit("login", private_registry.host, "-u", USERNAME, "--password-stdin", "--plain-http", stdin=PASSWORD)
    digest = modelkit.pack("w", f"{private_registry.host}/from/here:v1", "--plain-http")
    done = modelkit.json(
        "copy", f"{private_registry.host}/from/here:v1", f"{registry.host}/to/there:v1", "--plain-http"
    )
    assert done["digest"] == digest


def test_credentials_go_to_the_registry_that_is_named_and_to_no_other(modelkit, tmp_path):
    seen: list[str | None] = []

    class Other(http.server.BaseHTTPRequestHandler):
        """A registry that asks everybody for a password."""

        def do_GET(self):
            seen.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="other"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        config = tmp_path / "home" / ".docker" / "config.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"auths": {"localhost:5000": {"auth": "YWxpY2U6c2VjcmV0"}}}))
        modelkit("list", f"{host}/demo", "--plain-http", code=4)
        server.shutdown()
    assert seen
    assert set(seen) == {None}


def test_each_side_of_a_copy_has_flags_of_its_own(modelkit, repository):
    digest = modelkit.pack("w", f"{repository}:v1", "--plain-http")
    sides = ("copy", f"{repository}:v1", f"{repository}-mirror")
    assert modelkit.json(*sides, "--from-plain-http", "--to-plain-http")["digest"] == digest
    assert "plain_http" in error_of(modelkit(*sides, "--from-plain-http", "--quiet", code=2))


def test_a_repository_that_is_not_there_is_not_found(modelkit, repository):
    assert repository.partition("/")[2] in error_of(modelkit("list", repository, "--plain-http", code=3))


def test_what_is_not_there_or_does_not_answer_has_its_own_exit_code(modelkit, repository):
    error_of(modelkit("info", f"{repository}:v9", "--plain-http", code=3))
    error_of(modelkit("info", "127.0.0.1:1/demo:v9", "--plain-http", code=7))
