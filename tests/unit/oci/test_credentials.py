"""Credentials from Docker's config file and credential helpers."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_kitops.oci.credentials import (
    Credentials,
    docker_config_file,
    find_credentials,
    save_credentials,
)
from airflow_provider_kitops.oci.errors import InvalidInput


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def config(tmp_path: Path, monkeypatch):
    """Writes a config file and makes it Docker's usual one."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(value: object) -> Path:
        path = tmp_path / "config.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch):
    """Installs a credential helper that answers as it is told and notes what it was asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    asked = tmp_path / "asked"

    def install(name: str, answer: object, code: int = 0) -> Path:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (programs / "answer").write_text(text)
        path = programs / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\n(echo "$1"; cat) > "{asked}"\ncat "{programs}/answer"\nexit {code}\n')
        path.chmod(0o755)
        return asked

    return install


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("reg.example", "reg.example"),
        ("https://reg.example/v1/", "reg.example"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_a_registry_is_found_under_all_its_names(config, key: str, registry: str) -> None:
    config({"auths": {"other.example": auth("eve", "x"), key: auth("alice", "pass:word")}})
    assert find_credentials(registry) == Credentials("alice", "pass:word")


HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("registry", "exact", "loose"),
    [
        ("reg.example", "reg.example", "https://reg.example/v1/"),
        ("reg.example", "reg.example", "https://reg.example"),
        ("reg.example", "https://reg.example", "http://reg.example/v2/"),
        ("reg.example", "reg.example", "REG.example"),
        ("docker.io", HUB, "docker.io"),
        ("docker.io", HUB, "registry-1.docker.io"),
        ("registry-1.docker.io", "index.docker.io", "docker.io"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_several_names_the_more_exact_wins_wherever_it_stands(
    config, registry: str, exact: str, loose: str, turned: bool
) -> None:
    entries = [(loose, auth("mallory", "old")), (exact, auth("alice", "new"))]
    config({"auths": dict(reversed(entries) if turned else entries)})
    assert find_credentials(registry) == Credentials("alice", "new")


def test_an_empty_entry_hides_no_other(config) -> None:
    config({"auths": {"https://reg.example/v1/": auth("alice", "x"), "reg.example": {}}})
    assert find_credentials("reg.example") == Credentials("alice", "x")


@pytest.mark.parametrize("key", ["reg.example/team", "reg.example/v1", "https://reg.example/team/", "reg.example/v1/x"])
def test_credentials_for_the_repositories_below_a_path_are_not_those_of_the_registry(config, key: str) -> None:
    config({"auths": {key: auth("team", "x")}})
    assert not find_credentials("reg.example")
    config({"auths": {key: auth("team", "x"), "https://reg.example/v1/": auth("alice", "y")}})
    assert find_credentials("reg.example") == Credentials("alice", "y")


def test_an_unknown_registry_and_a_missing_file_have_none(config, tmp_path) -> None:
    assert not find_credentials("reg.example")
    config({"auths": {"reg.example:5000": auth("alice", "x"), "other": {}}})
    assert not find_credentials("reg.example")
    with pytest.raises(InvalidInput, match=r"no Docker config file .*nowhere\.json"):
        find_credentials("reg.example", tmp_path / "nowhere.json")


def test_an_identity_token_is_taken_for_what_it_is(config) -> None:
    config({"auths": {"reg.example": {**auth("00000000", ""), "identitytoken": "token"}}})
    assert find_credentials("reg.example") == Credentials(identity_token="token")


def test_the_helper_of_a_registry_wins_over_the_rest(config, helper) -> None:
    asked = helper("test", {"ServerURL": "x", "Username": "alice", "Secret": "from helper"})
    config(
        {
            "credHelpers": {"reg.example": "test"},
            "credsStore": "missing",
            "auths": {"reg.example": auth("alice", "from file")},
        }
    )
    assert find_credentials("reg.example") == Credentials("alice", "from helper")
    assert asked.read_text() == "get\nreg.example"


def test_the_store_is_asked_for_what_the_file_does_not_hold(config, helper) -> None:
    asked = helper("test", {"Username": "<token>", "Secret": "token"})
    config({"credsStore": "test", "auths": {"reg.example": {}}})
    assert find_credentials("reg.example") == Credentials(identity_token="token")
    find_credentials("docker.io")
    assert asked.read_text() == "get\nhttps://index.docker.io/v1/"


def test_a_helper_that_knows_nothing_means_no_credentials(config, helper) -> None:
    helper("test", "credentials not found in native keychain", code=1)
    config({"credsStore": "test"})
    assert not find_credentials("reg.example")


@pytest.mark.parametrize(("answer", "code"), [("a secret", 1), ("a secret", 0), ('{"Username": "a secret"}', 0)])
def test_a_helper_that_fails_is_named_and_its_output_is_not_shown(config, helper, answer: str, code: int) -> None:
    helper("test", answer, code)
    config({"credHelpers": {"reg.example": "test"}})
    with pytest.raises(InvalidInput, match="docker-credential-test") as caught:
        find_credentials("reg.example")
    assert "a secret" not in str(caught.value)


def test_a_store_that_is_not_installed_is_no_obstacle_but_a_named_helper_is(config, caplog) -> None:
    config({"credsStore": "not-installed"})
    assert not find_credentials("reg.example")
    assert "not-installed" in caplog.text
    config({"credHelpers": {"reg.example": "not-installed"}})
    with pytest.raises(InvalidInput, match="not installed"):
        find_credentials("reg.example")
    config({"credHelpers": {"reg.example": "../../bin/sh"}})
    with pytest.raises(InvalidInput, match="no name of a credential helper"):
        find_credentials("reg.example")


@pytest.mark.parametrize(
    "value", ["{secret", "[]", {"auths": ["x"]}, {"auths": {"reg.example": {"auth": "c2VjcmV0"}}}, {"credHelpers": 1}]
)
def test_a_malformed_file_is_named_and_not_shown(config, value: object) -> None:
    path = config(value)
    with pytest.raises(InvalidInput, match=r"config\.json") as caught:
        find_credentials("reg.example")
    assert "secret" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_secrets_do_not_show() -> None:
    shown = repr(Credentials("alice", "open sesame", "token"))
    assert "sesame" not in shown
    assert "token=" not in shown


def test_the_config_file_may_be_named_by_its_directory(tmp_path: Path) -> None:
    assert docker_config_file(tmp_path) == tmp_path / "config.json"
    assert docker_config_file(tmp_path / "other.json") == tmp_path / "other.json"


@pytest.fixture
def nobody(monkeypatch) -> None:
    """A user that no list of users knows, as in a container that runs under any number."""
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("HOME", raising=False)

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_the_config_file_is_where_docker_looks_for_it(nobody, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert docker_config_file() == tmp_path / ".docker" / "config.json"
    # Always a directory to docker, whatever its name looks like and whether it exists.
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "my.docker"))
    assert docker_config_file() == tmp_path / "my.docker" / "config.json"


def test_an_empty_home_counts_as_none(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("pwd.getpwuid", lambda number: SimpleNamespace(pw_dir=str(tmp_path)))
    assert docker_config_file() == tmp_path / ".docker" / "config.json"


def test_without_a_home_there_are_no_credentials_and_no_place_for_them(nobody, tmp_path: Path) -> None:
    assert not find_credentials("reg.example")
    with pytest.raises(InvalidInput, match=r"DOCKER_CONFIG"):
        docker_config_file()
    with pytest.raises(InvalidInput, match="whole path"):
        docker_config_file(Path("~/config.json"))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"reg.example": auth("alice", "x")}}))
    assert find_credentials("reg.example", tmp_path) == Credentials("alice", "x")


def test_a_config_directory_that_may_not_be_looked_into_is_no_obstacle(monkeypatch, tmp_path: Path, caplog) -> None:
    def refused(path: object, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert not find_credentials("reg.example")
    assert "Permission denied" in caplog.text
    with pytest.raises(InvalidInput, match="Permission denied"):
        find_credentials("reg.example", tmp_path)


def test_a_config_nested_without_end_is_refused(config) -> None:
    config("[" * 100_000)
    with pytest.raises(InvalidInput, match="not JSON"):
        find_credentials("reg.example")


# --- keeping them

ALICE = Credentials("alice", "open sesame")


@pytest.mark.parametrize("given", [ALICE, Credentials("alice", "pass:word"), Credentials(identity_token="token")])
@pytest.mark.parametrize("registry", ["reg.example", "Reg.Example", "127.0.0.1:5000", "docker.io"])
def test_what_is_kept_is_found(config, registry: str, given: Credentials) -> None:
    path = config({"auths": {"other.example": auth("eve", "x")}})
    assert save_credentials(registry, given, path) == str(path)
    assert find_credentials(registry) == given
    assert find_credentials("other.example") == Credentials("eve", "x")


def test_they_are_added_to_docker_s_file_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "config.json"
    save_credentials("one.example", Credentials("me", "secret"), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"detachKeys": "ctrl-e,e"}))
    save_credentials("two.example:5000", Credentials(identity_token="token"), path)
    assert json.loads(path.read_text()) == {
        "auths": {"one.example": {"auth": "bWU6c2VjcmV0"}, "two.example:5000": {"identitytoken": "token"}},
        "detachKeys": "ctrl-e,e",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("registry", "old"),
    [("reg.example", "https://reg.example/v1/"), ("reg.example", "REG.example"), ("docker.io", "docker.io")],
)
def test_older_spellings_of_the_same_registry_are_taken_out(config, registry: str, old: str) -> None:
    others = {"reg.example/team": auth("team", "x"), "reg.example:5000": auth("eve", "x")}
    path = config({"auths": {old: auth("alice", "stale"), **others}})
    save_credentials(registry, ALICE, path)
    assert find_credentials(registry) == ALICE
    kept = json.loads(path.read_text())["auths"]
    assert kept.items() >= others.items()
    assert len(kept) == 3


def test_docker_s_hub_is_kept_under_docker_s_own_address(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    save_credentials("docker.io", ALICE, path)
    assert list(json.loads(path.read_text())["auths"]) == [HUB]


@pytest.mark.parametrize(
    ("settings", "registry", "server"),
    [
        ({"credHelpers": {"reg.example": "test"}}, "reg.example", "reg.example"),
        ({"credHelpers": {"reg.example": "test"}, "credsStore": "other"}, "reg.example", "reg.example"),
        ({"credsStore": "test"}, "reg.example", "reg.example"),
        ({"credsStore": "test"}, "docker.io", HUB),
        ({"credHelpers": {"docker.io": "test"}}, "docker.io", "docker.io"),
        ({"credHelpers": {"docker.io": "other", HUB: "test"}}, "docker.io", HUB),
    ],
)
def test_a_helper_is_told_through_a_pipe_under_the_name_it_is_asked_for(
    config, helper, settings: dict[str, object], registry: str, server: str
) -> None:
    asked = helper("test", {"Username": "alice", "Secret": "open sesame"})
    path = config(settings)
    assert save_credentials(registry, ALICE, path) == "docker-credential-test"
    verb, _, request = asked.read_text().partition("\n")
    assert (verb, json.loads(request)) == (
        "store",
        {"ServerURL": server, "Username": "alice", "Secret": "open sesame"},
    )
    assert json.loads(path.read_text()) == settings
    assert find_credentials(registry) == ALICE
    assert asked.read_text() == f"get\n{server}"


def test_a_helper_is_told_what_an_identity_token_is(config, helper) -> None:
    asked = helper("test", "")
    save_credentials("reg.example", Credentials(identity_token="token"), config({"credsStore": "test"}))
    assert json.loads(asked.read_text().partition("\n")[2])["Username"] == "<token>"


def test_what_the_file_holds_does_not_hide_what_a_helper_was_told(config, helper) -> None:
    helper("test", {"Username": "alice", "Secret": "open sesame"})
    path = config({"credsStore": "test", "auths": {"https://reg.example": auth("alice", "stale"), "other": {}}})
    save_credentials("reg.example", ALICE, path)
    assert find_credentials("reg.example") == ALICE
    assert json.loads(path.read_text()) == {"credsStore": "test", "auths": {"other": {}}}


@pytest.mark.parametrize("name", ["missing", "../x", "-", "fails"])
def test_a_helper_that_does_not_keep_them_is_an_error_without_the_secret(config, helper, name: str) -> None:
    helper("fails", "open sesame", code=1)
    path = config({"credsStore": name, "auths": {"reg.example": auth("alice", "old")}})
    with pytest.raises(InvalidInput) as caught:
        save_credentials("reg.example", ALICE, path)
    assert "sesame" not in str(caught.value)
    assert json.loads(path.read_text())["auths"], "what was kept before is kept still"


@pytest.mark.parametrize("value", ["{secret", "[]", {"auths": ["x"]}, {"credHelpers": 1}])
def test_a_file_that_is_no_config_is_left_alone(config, value: object) -> None:
    path = config(value)
    before = path.read_text()
    with pytest.raises(InvalidInput, match=r"config\.json"):
        save_credentials("reg.example", ALICE, path)
    assert path.read_text() == before


def test_a_file_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidInput, match="Is a directory"):
        save_credentials("reg.example", ALICE, tmp_path / "config.json")


def test_a_linked_config_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles.json").write_text("{}")
    (tmp_path / "config.json").symlink_to(tmp_path / "dotfiles.json")
    save_credentials("one.example", ALICE, tmp_path / "config.json")
    assert (tmp_path / "config.json").is_symlink()
    assert "one.example" in (tmp_path / "dotfiles.json").read_text()
