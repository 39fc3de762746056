"""No secret is told: not in a log at its most talkative, an error, a repr, the list of processes, or to Airflow."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.copy import copy
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import KitopsError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.store import Store, StoreConfig
from tests.artifacts import LAYER, put_artifact
from tests.proxy import Answer, Fault, Proxy, Request
from tests.registry import Registry
from tests.registry_checks import quick_repository

PASSWORD, IDENTITY, PROXY_PASSWORD = "pa55/w0rd+one", "1dent1ty-t0ken", "pr0xy-pa55"
USER = Credentials("alice", PASSWORD)
TOKEN, SIGNATURE = "t0ken-of-the-service", "s1gnature-of-the-st0rage"
SECRETS = {
    *(PASSWORD, IDENTITY, PROXY_PASSWORD, TOKEN, SIGNATURE, quote(PASSWORD, safe="")),
    USER.basic.removeprefix("Basic "),
    Credentials("proxyuser", PROXY_PASSWORD).basic.removeprefix("Basic "),
}


class Line:
    """A forward proxy with a password, before a registry with a token service and a storage with signed addresses.

    :ivar deny: what the storage answers with, repeating what it was asked.
    """

    def __init__(self, registry: Proxy, forward: Proxy) -> None:
        self.registry, self.forward = registry, forward
        self.deny = False
        self.asked: set[str] = set()
        registry.rule, forward.rule = self.at_registry, self.at_proxy

    @property
    def proxy_url(self) -> str:
        return f"http://proxyuser:{PROXY_PASSWORD}@{self.forward.host}"

    def at_proxy(self, request: Request) -> Fault | None:
        if request.headers.get("proxy-authorization", "").startswith("Basic "):
            self.asked.add("proxy")
            return None
        return Fault(Answer(407))

    def at_registry(self, request: Request) -> Fault | None:
        if request.path == "/token":
            self.asked.add("identity" if request.method == "POST" else "password")
            return Fault(Answer(200, body=json.dumps({"token": TOKEN}).encode()))
        if "X-Amz-Signature" in request.query:
            self.asked.add("storage")
            said = f"denied: {request.target} {request.query}"
            body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
            return Fault(Answer(403, body=body)) if self.deny else None
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            realm = f'Bearer realm="{self.registry.url}/token",service="registry"'
            return Fault(Answer(401, {"WWW-Authenticate": realm}))
        if request.method == "GET" and "/blobs/" in request.path:
            host = self.registry.host.replace("127.0.0.1", "127.0.0.2")
            return Fault(Answer(307, {"Location": f"http://{host}{request.path}?X-Amz-Signature={SIGNATURE}"}))
        return None


@pytest.fixture
def line(registry: Registry) -> Iterator[Line]:
    with Proxy(registry.host) as before, Proxy(before.host) as forward:
        yield Line(before, forward)


@pytest.fixture
def name() -> str:
    return f"secrets/{uuid.uuid4().hex}"


def assert_silent(text: str) -> None:
    found = {secret for secret in SECRETS if secret in text}
    assert not found, [line for line in text.splitlines() if any(secret in line for secret in found)]


@pytest.mark.parametrize("how", ["password", "identity"])
def test_the_command_tells_no_secret(line: Line, tmp_path: Path, name: str, how: str) -> None:
    """With every logger at its most talkative."""
    put_artifact(Layout(tmp_path / "layout", "a"), os.urandom(1_000_000), tag="v1")
    program = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG, format='%(name)s %(message)s %(args)s');"
        "from airflow_provider_kitops.cli import main; sys.exit(main())"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MODELKIT_LAYOUT": str(tmp_path / "layout"),
        "http_proxy": line.proxy_url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    host = line.registry.host
    flags = ["--plain-http", "--password-stdin", *(["-u", "alice"] if how == "password" else [])]
    said, listed = "", ""
    for arguments, code in [
        (["login", host], 0),
        (["push", "a:v1", f"{host}/{name}:v1"], 0),
        (["pull", f"{host}/{name}:v1", "b:v1"], 0),
        (["pull", f"{host}/{name}:v1", "c:v1"], 4),
    ]:
        line.deny = code != 0
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments, *flags], env=environment, cwd=tmp_path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            # It waits for its standard input, so it is there to be seen.
            listed += subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True).stdout
            out, _ = process.communicate(PASSWORD if how == "password" else IDENTITY, timeout=60)
        assert process.returncode == code, out
        said += out
    assert line.asked == {"proxy", "storage", how}
    assert "urllib3.connectionpool" in said, "the logs were on"
    assert "GET" in said
    assert "login" in listed
    assert_silent(said + listed)


def test_errors_and_reprs_tell_no_secret(
    line: Line, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = StoreConfig(line.registry.host, username="alice", password=PASSWORD, proxy=line.proxy_url, plain_http=True)
    told = []
    with Store(config) as store:
        target = store.target(name)
        put_artifact(target, b"layer", tag="v1")
        copy(target, "v1", Layout(tmp_path, "a"), "v1")
        line.deny = True
        blob = Descriptor.of(LAYER, b"layer")
        for proxy in (
            line.proxy_url,
            line.proxy_url.replace(PROXY_PASSWORD, "pr0xy-pa55-too"),
            "http://x:y@127.0.0.1:1",
        ):
            with quick_repository(line.registry.host, name, USER, proxy=proxy) as there:
                with pytest.raises(KitopsError) as caught:
                    read(there, blob)
                told += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
                told += [repr(there), repr(there._client.settings), repr(there._client.auth.credentials)]
        told += [repr(config), repr(store), repr(target), repr(vars(config).keys())]
    assert {"proxy", "password", "storage"} <= line.asked
    assert any("connectionpool" in record.name for record in caplog.records)
    assert any("denied" in each for each in told), "what the storage said is told, less the secrets"
    assert_silent("\n".join(told) + caplog.text + repr([(record.msg, record.args) for record in caplog.records]))


def test_airflow_is_told_no_secret(line: Line, name: str, tmp_path: Path) -> None:
    """XCom, rendered templates and the task's log."""
    pytest.importorskip("airflow")
    put_artifact(Layout(tmp_path / "layout", name), b"layer", tag="v1")
    program = f"""
import json, logging, sys
from types import SimpleNamespace
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
logging.basicConfig(level=logging.DEBUG, force=True, stream=sys.stdout)  # Airflow has set its own
for each in list(logging.root.manager.loggerDict):
    logging.getLogger(each).setLevel(logging.DEBUG)
    logging.getLogger(each).disabled = False
class Instance(SimpleNamespace):
    def xcom_push(self, key, value): print("XCOM", key, json.dumps(value))
instance = Instance(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)
for task in (
    KitPushOperator(task_id="push", source="{name}:v1"),
    KitPullOperator(task_id="pull", source="{name}:v1", destination_layout="pulled"),
):
    print("RETURNED", json.dumps(task.execute({{"ti": instance}})))
    print("RENDERED", {{name: getattr(task, name) for name in task.template_fields}}, vars(task))
"""
    connection = {
        "conn_type": "kitops",
        "host": line.registry.host,
        "login": "alice",
        "password": PASSWORD,
        "extra": {"plain_http": True, "proxy": line.proxy_url},
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MODELKIT_LAYOUT": str(tmp_path / "layout"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW_CONN_KITOPS_DEFAULT": json.dumps(connection),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("RETURNED") == done.stdout.count("RENDERED") == 2
    assert line.asked == {"proxy", "password", "storage"}
    assert "connectionpool" in done.stdout + done.stderr
    assert_silent(done.stdout + done.stderr)


def test_an_error_survives_the_way_between_processes() -> None:
    """Pools of processes send them; what cannot be sent hangs or hides the real one."""
    error = KitopsError("Could not do it.", hint="Do something else.")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint) == (str(error), error.hint)
