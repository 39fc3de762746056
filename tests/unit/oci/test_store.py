"""Stores: what a reference means in them, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference, NotFound, StorageError
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.reference import Reference
from airflow_provider_kitops.oci.repository import Repository
from airflow_provider_kitops.oci.store import Store, StoreConfig, default_layout
from airflow_provider_kitops.oci.tagging import split_reference
from tests.artifacts import put_artifact

DIGEST = "sha256:" + "a" * 64

_part = st.from_regex(r"[a-z0-9]{1,6}([._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
_repository = st.lists(_part, min_size=1, max_size=4).map("/".join)
_registry = st.sampled_from(["", "localhost", "127.0.0.1:5000", "registry.example", "[::1]:5000"])
_tag = st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(_registry, _repository, _tag, st.sampled_from(["", DIGEST]))
def test_a_reference_reads_back_as_it_is_written(registry: str, repository: str, tag: str, digest: str) -> None:
    reference = Reference(registry, repository, tag, digest)
    first, slash, _ = repository.partition("/")
    if not registry and slash and ("." in first or first == "localhost"):
        return  # written without a registry, it names another
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert str(reference) == text


def test_tags_are_split_from_a_reference_to_write_to() -> None:
    assert split_reference("127.0.0.1:5000/demo/model:v1, latest,v1") == (
        "127.0.0.1:5000/demo/model",
        ("v1", "latest"),
    )
    assert split_reference("localhost:5000/model") == ("localhost:5000/model", ())
    for wrong in ("demo/model:v1,,v2", "demo/model:", "demo/model:v1@" + DIGEST):
        with pytest.raises(InvalidReference):
            split_reference(wrong)
    with pytest.raises(InvalidReference) as caught:
        split_reference("user:s3cret@registry.example/model:v1")
    assert "s3cret" not in str(caught.value)


@given(_repository, st.sampled_from(["", "team", "team/a"]), st.sampled_from(["", "127.0.0.1:5000"]))
def test_qualifying_twice_is_the_same(repository: str, namespace: str, registry: str) -> None:
    store = Store(StoreConfig(registry, namespace=namespace))
    try:
        once = store.reference(f"{repository}:v1")
    except InvalidReference:
        return
    assert store.reference(once) == once == store.reference(str(once))


def test_a_registry_and_a_namespace_are_added_to_references_without_a_registry() -> None:
    store = Store(StoreConfig("Harbor.example", namespace="team"))
    assert str(store.reference("model:v1")) == "harbor.example/team/model:v1"
    assert str(store.reference("harbor.example/other/model:v1")) == "harbor.example/other/model:v1"
    target = store.target("model")
    assert isinstance(target, Repository)
    assert target.name == "harbor.example/team/model"
    assert target is store.target("harbor.example/team/model@" + DIGEST)


@pytest.mark.parametrize("registry", ["", "registry.example"])
def test_another_registry_is_refused(registry: str) -> None:
    with pytest.raises(InvalidReference, match=r"other\.example"):
        Store(StoreConfig(registry)).target("other.example/model:v1")


def test_in_a_layout_the_namespace_is_a_directory(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path, namespace="team"))
    target = store.target("model:v1")
    assert isinstance(target, Layout)
    manifest = put_artifact(target, b"x", tag="v1")
    assert (tmp_path / "team/model/index.json").exists()
    assert store.resolve("model:v1") == (Reference("", "model", "", manifest.digest), manifest)
    assert store.repositories() == ["model"]
    assert Store(StoreConfig(layout=tmp_path)).repositories() == ["team/model"]


def test_repositories_below_repositories_are_listed(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path))
    assert store.repositories() == []
    for name in ("b", "a/b/c", "a"):
        put_artifact(store.target(name), b"x", tag="v1")
    assert store.repositories() == ["a", "a/b/c", "b"]


def test_links_are_not_followed_when_repositories_are_listed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "root")  # the root itself may be one
    store = Store(StoreConfig(layout=tmp_path / "linked"))
    put_artifact(store.target("model"), b"x", tag="v1")
    for name in ("one", "two"):
        (tmp_path / "root" / name).symlink_to(".")
    assert store.repositories() == ["model"]


@pytest.mark.parametrize("namespace", ["", "team"])
def test_a_root_that_is_a_file_is_no_empty_layout(tmp_path: Path, namespace: str) -> None:
    (tmp_path / "root").write_bytes(b"")
    store = Store(StoreConfig(layout=tmp_path / "root", namespace=namespace))
    calls = (
        store.repositories,
        lambda: store.target("model").tags(),
        lambda: store.resolve("model:v1"),
        lambda: put_artifact(store.target("model"), b"x"),
    )
    for call in calls:
        with pytest.raises(StorageError, match=r"root.*[Aa] file is in the way"):
            call()


def test_resolve_needs_a_tag_or_a_digest_that_exists(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path))
    with pytest.raises(InvalidReference, match="names a repository"):
        store.resolve("model")
    with pytest.raises(NotFound):
        store.resolve("model:v1")


def test_check_says_whether_a_layout_can_be_written_and_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    missing = Store(StoreConfig(layout=tmp_path / "a/b"))
    assert "will be made" in missing.check()
    assert list(tmp_path.iterdir()) == []
    assert "can be written" in Store(StoreConfig(layout=tmp_path)).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        Store(StoreConfig(layout=tmp_path / "file/layout")).check()
    monkeypatch.setattr("airflow_provider_kitops.oci.store.os.access", lambda *_: False)
    with pytest.raises(StorageError, match="permission"):
        missing.check()


@pytest.mark.parametrize(
    "values",
    [
        {"registry": "https://registry.example"},
        {"registry": "registry.example/team"},
        {"registry": "registry"},
        {"registry": "a b.example"},
        {"namespace": "Team"},
        {"namespace": "a/blobs"},
        {"namespace": "../up"},
        {"concurrency": 0},
        {"registry": "registry.example", "password": "open sesame"},
        *(
            {"token_hosts": (host,)}
            for host in ("", "https://a.example", "a.example:443", "a.example/x", "u:sesame@a.example", "*.example")
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(values: dict) -> None:
    with pytest.raises(InvalidInput) as caught:
        StoreConfig(**values)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "registry", ["user:s3cret@reg.example.com", "https://user:s3cret@reg.example.com", "user:s3@cret@reg.example.com"]
)
@pytest.mark.parametrize("rest", ["", "/model:v1", "/model@" + DIGEST, "/model@sha256:short", "/" + "a" * 1100])
def test_credentials_in_a_reference_or_registry_are_not_quoted(registry: str, rest: str) -> None:
    for call in (Reference.parse, StoreConfig, lambda text: StoreConfig(namespace=text)):
        with pytest.raises(InvalidInput, match="…@") as caught:
            call(registry + rest)
        assert "s3" not in str(caught.value)
    with pytest.raises(InvalidInput, match="redentials"):
        StoreConfig(registry)
    with pytest.raises(InvalidInput, match="redentials"):
        Reference.parse(registry)


def test_a_certificate_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    config = StoreConfig("registry.example", ca_bundle=tmp_path / "ca.pem")
    with pytest.raises(InvalidInput, match=r"ca\.pem"):
        Store(config)
    with pytest.raises(InvalidInput, match="client key"):
        Store(replace(config, ca_bundle=None, client_key=Path(__file__)))


@pytest.mark.parametrize("field", ["client_cert", "client_key"])
def test_a_certificate_that_cannot_be_read_is_refused_at_once(tmp_path: Path, field: str) -> None:
    config = StoreConfig("registry.example", client_cert=Path(__file__))
    with pytest.raises(InvalidInput, match="Is a directory"):
        Store(replace(config, **{field: tmp_path}))


def test_token_hosts_are_kept_as_addresses_name_them() -> None:
    config = StoreConfig("registry.example", token_hosts=(" Auth.Example ", "[::1]", "10.0.0.1", "localhost"))
    assert config.token_hosts == ("auth.example", "::1", "10.0.0.1", "localhost")


def test_a_repository_exists_or_is_not_found(tmp_path: Path) -> None:
    store = Store(StoreConfig(layout=tmp_path))
    put_artifact(store.target("team/model"), b"x", tag="v1")
    store.check_repository("team/model")
    for name in ("team", "team/other"):
        with pytest.raises(NotFound, match=f"no repository {name} "):
            store.check_repository(name)


def test_secrets_do_not_show() -> None:
    config = StoreConfig(
        "r.example", username="u", password="open sesame", identity_token="t0ken", proxy="http://p:w@x"
    )
    for shown in (repr(config), repr(Store(config))):
        assert not {"sesame", "t0ken", "p:w"} & set(shown.replace("'", " ").split())
        assert "sesame" not in shown


def test_the_default_layout_follows_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MODELKIT_LAYOUT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_layout() == tmp_path / "airflow-provider-kitops/layout"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_layout() == Path("/home/somebody/.local/share/airflow-provider-kitops/layout")
    monkeypatch.setenv("MODELKIT_LAYOUT", "~/kits")
    assert default_layout() == Path("/home/somebody/kits")


def test_without_a_home_directory_a_layout_has_to_be_named(monkeypatch, tmp_path: Path) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_DATA_HOME", "MODELKIT_LAYOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(InvalidInput, match="MODELKIT_LAYOUT"):
        default_layout()
    with pytest.raises(InvalidInput, match="MODELKIT_LAYOUT"):
        Store(StoreConfig(layout=Path("~/kits")))
    assert Store(StoreConfig("registry.example")).reference("model:v1").registry == "registry.example"
    monkeypatch.setenv("MODELKIT_LAYOUT", str(tmp_path))
    assert default_layout() == tmp_path
