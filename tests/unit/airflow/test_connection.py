"""An Airflow connection becomes the settings of a store, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import Connection

from airflow_provider_kitops.get_provider_info import CONNECTION_FIELDS, get_provider_info
from airflow_provider_kitops.hooks.kitops import KitopsHook, store_config
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.operators.push import KitPushOperator

from .conftest import Connections


def connection(*, extra: Any = None, conn_type: str = "kitops", **fields: Any) -> Connection:
    text = extra if isinstance(extra, str) or extra is None else json.dumps(extra)
    return Connection(conn_id="c", conn_type=conn_type, extra=text, **fields)


def test_a_connection_without_a_host_is_the_local_layout(tmp_path: Path) -> None:
    config = store_config(connection(extra={"layout": str(tmp_path)}))
    assert (config.registry, config.layout) == ("", tmp_path)


def test_every_field_of_the_form_reaches_the_store() -> None:
    extra = {
        "layout": "/l",
        "namespace": "team/models",
        "plain_http": True,
        "ca_bundle": "/ca.pem",
        "client_cert": "/c.pem",
        "client_key": "/k.pem",
        "identity_token": "tok",
        "docker_config": "/d/config.json",
        "proxy": "http://proxy:3128",
        "token_hosts": "auth.example.com, Tokens.example.net",
        "mutable_tags": "latest champion-*",
        "concurrency": 3,
    }
    assert set(extra) == set(CONNECTION_FIELDS), "a field of the form is not tried here"
    config = store_config(connection(host="harbor.example.com", login="me", password="pw", extra=extra))
    assert config.registry == "harbor.example.com"
    assert (config.username, config.password, config.identity_token) == ("me", "pw", "tok")
    assert config.namespace == "team/models"
    assert config.plain_http is True
    assert [config.layout, config.ca_bundle, config.client_cert, config.client_key, config.docker_config] == [
        Path(extra[key]) for key in ("layout", "ca_bundle", "client_cert", "client_key", "docker_config")
    ]
    assert config.proxy == "http://proxy:3128"
    assert config.token_hosts == ("auth.example.com", "tokens.example.net")
    assert config.mutable_tags == ("latest", "champion-*")
    assert config.concurrency == 3


def test_empty_fields_of_the_form_are_no_settings() -> None:
    extra = dict.fromkeys(CONNECTION_FIELDS) | {"layout": "", "mutable_tags": ""}
    assert store_config(connection(extra=extra)) == store_config(connection())


def test_a_uri_works_as_well_as_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "kitops://me:p%40ss@127.0.0.1:5000/?plain_http=true&concurrency=2"
    monkeypatch.setenv("AIRFLOW_CONN_BY_URI", uri)
    config = KitopsHook("by_uri").config()
    assert (config.registry, config.username, config.password) == ("127.0.0.1:5000", "me", "p@ss")
    assert (config.plain_http, config.concurrency) == (True, 2)


@pytest.mark.parametrize(("host", "port", "registry"), [("h", 5000, "h:5000"), ("h:5000", 5000, "h:5000")])
def test_the_port_may_stand_in_either_field(host: str, port: int, registry: str) -> None:
    assert store_config(connection(host=host, port=port)).registry == registry


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"extra": {"plain_htp": True}}, "did you mean 'plain_http'"),
        ({"extra": {"nothing_alike": 1}}, "unknown key 'nothing_alike'"),
        ({"extra": {"plain_http": "maybe"}}, "plain_http in extra is neither true nor false"),
        ({"extra": {"layout": "relative/path"}}, "layout in extra is not an absolute path"),
        ({"extra": {"concurrency": 0}}, "concurrency in extra is not a positive whole number"),
        ({"extra": {"mutable_tags": 5}}, "mutable_tags in extra is neither text nor a list of texts"),
        ({"extra": {"mutable_tags": ["latest", None]}}, "mutable_tags in extra is neither text nor a list of texts"),
        ({"extra": {"token_hosts": 5}}, "token_hosts in extra is neither text nor a list of texts"),
        ({"extra": {"namespace": 7}}, "namespace in extra is not text"),
        ({"extra": "[1]"}, "not a JSON object"),
        ({"extra": "{broken"}, "not valid JSON"),
        ({"host": "https://harbor.example.com"}, "not host[:port]"),
        ({"host": "https://harbor.example.com"}, "leave out https://."),
        ({"host": "http://127.0.0.1:5000/"}, "leave out http:// and set plain_http"),
        ({"host": "h:1", "port": 2}, "port 2 beside a host that names port 1"),
        ({"port": 5000}, "a port without a host"),
        ({"schema": "models"}, "the extra 'namespace'"),
        ({"conn_type": "http"}, "has type 'http', not 'kitops'"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match="Connection 'c'") as caught:
        store_config(connection(**fields))
    assert told in str(caught.value)


def test_the_known_keys_are_listed_for_an_unknown_one_only() -> None:
    for extra, listed in (({"layot": "/l"}, True), ({"layout": "l"}, False)):
        with pytest.raises(InvalidInput) as caught:
            store_config(connection(extra=extra))
        assert ("Extra may hold" in str(caught.value)) is listed
    assert str(caught.value).startswith("Connection 'c': layout in extra is not an absolute path")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        store_config(connection(schema="x", extra={"layot": "/l", "concurrency": "many"}))
    assert all(word in str(caught.value) for word in ("schema", "layot", "concurrency"))


@pytest.mark.parametrize("host", ["https://me:hunter2@h", "me:hunter2@h.example.com", "me:hunter2@h:5000"])
def test_no_error_tells_a_secret(host: str) -> None:
    fields = {
        "host": host,
        "password": "hunter2",
        "extra": {"identity_token": ["hunter2"], "proxy": {"url": "hunter2"}, "plain_http": "hunter2"},
    }
    with pytest.raises(InvalidInput) as caught:
        store_config(connection(**fields))
    assert "hunter2" not in str(caught.value)


def test_the_button_tests_the_layout(tmp_path: Path, connections: Connections) -> None:
    connections.set(extra={"layout": str(tmp_path / "new")})
    assert KitopsHook().test_connection()[0] is True


def test_the_button_tells_what_is_wrong(connections: Connections) -> None:
    connections.set(host="127.0.0.1:1", extra={"plain_http": True})
    ok, message = KitopsHook().test_connection()
    assert not ok
    assert "127.0.0.1:1" in message


def test_the_button_tells_no_password_of_the_host(connections: Connections) -> None:
    connections.set(host="me:hunter2@h.example.com", port=5000)
    ok, message = KitopsHook().test_connection()
    assert not ok
    assert "hunter2" not in message
    assert "a host with credentials" in message


def test_resolving_an_unknown_tag_gives_the_default_or_an_error(layout: Path) -> None:
    assert KitopsHook().resolve("demo/model:champion", default=None) is None
    with pytest.raises(AirflowFailException, match="demo/model"):
        KitopsHook().resolve("demo/model:champion")


def test_resolving_what_is_no_reference_is_an_error_even_with_a_default(layout: Path) -> None:
    with pytest.raises(AirflowFailException, match="Not A Reference"):
        KitopsHook().resolve("Not A Reference", default=None)


def test_a_connection_that_cannot_be_used_is_not_worth_a_retry(connections: Connections) -> None:
    connections.set(extra={"layot": "/l"})
    hook = KitopsHook()
    for call in (hook.config, hook.store, hook.get_conn, lambda: hook.resolve("demo/model:v1", default=None)):
        with pytest.raises(AirflowFailException, match="layot"):
            call()
    assert hook.test_connection()[0] is False


def test_resolving_at_a_registry_that_is_away_is_worth_a_retry(connections: Connections) -> None:
    connections.set(host="127.0.0.1:1", extra={"plain_http": True})
    with pytest.raises(AirflowException, match=r"127\.0\.0\.1:1") as caught:
        KitopsHook().resolve("demo/model:v1", default=None)
    assert not isinstance(caught.value, AirflowFailException)


def test_the_form_for_older_airflow_has_the_same_fields() -> None:
    # Airflow 3.1 brings these; 3.2 and later build the form from the provider's description.
    pytest.importorskip("wtforms", reason="only Airflow 3.1 needs this form")
    assert list(KitopsHook.get_connection_form_widgets()) == list(CONNECTION_FIELDS)
    assert KitopsHook.get_ui_field_behaviour()["relabeling"] == {"host": "Registry"}


def test_every_module_that_the_provider_names_exists() -> None:
    import importlib

    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)


def test_a_push_that_finds_nothing_says_which_settings_tell_where_the_source_is(
    tmp_path: Path, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELKIT_LAYOUT", str(tmp_path / "empty"))
    connections.set(extra={"layout": str(tmp_path / "there")})
    push = KitPushOperator(task_id="push", source="demo/model:v1")
    with pytest.raises(AirflowFailException, match="source_conn_id or source_layout"):
        push.execute({})
    push = KitPushOperator(task_id="push", source="demo/model:v1", source_layout=tmp_path / "empty")
    with pytest.raises(AirflowFailException) as caught:
        push.execute({})
    assert "source_conn_id" not in str(caught.value)
