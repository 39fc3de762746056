"""What the caller writes for a pod, the pod reads as it was."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.store import StoreConfig
from airflow_provider_kitops.workload import mounts
from airflow_provider_kitops.workload.spec import WorkloadSpec

SPEC = WorkloadSpec.of(
    inputs={"base": f"demo/base@sha256:{'a' * 64}"},
    image=f"ghcr.io/demo/train@sha256:{'b' * 64}",
    command=["train", "--text", 'a "quoted" $(HOME) ☃'],
    config={"rate": 1e-4, "names": ["yes", None]},
    output={"reference": "demo/model:v1", "kitfile": {"manifestVersion": "1.0.0"}, "tags": ["latest"]},
    env={"A": "b"},
)
HOST = "registry.example.com:5000"

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
# RFC 7617: a user's name holds no colon.
users = texts.filter(lambda text: ":" not in text)
configs = st.builds(
    StoreConfig,
    registry=st.sampled_from([HOST, "127.0.0.1:5000", "docker.io", "ghcr.io", "[::1]:5000"]),
    namespace=st.sampled_from(["", "team", "team/models"]),
    plain_http=st.booleans(),
    concurrency=st.integers(1, 64),
    mutable_tags=st.lists(st.sampled_from(["latest", "v*", "[ab]?"]), max_size=3).map(tuple),
    token_hosts=st.lists(st.sampled_from(["auth.example.com", "::1"]), max_size=2).map(tuple),
    proxy=st.sampled_from(["", "http://user:p%40ss@proxy.example.com:3128"]),
)
secrets = st.one_of(
    st.builds(Credentials, users, texts),
    st.builds(Credentials, identity_token=texts),
    st.just(Credentials()),
)


def mounted(directory: Path, files: tuple[dict[str, str], dict[str, bytes]]) -> tuple[Path, Path]:
    """The files as a kubelet mounts them."""
    job, secret = directory / "job", directory / "secret"
    for place in (job, secret):
        place.mkdir()
    for name, text in files[0].items():
        (job / name).write_bytes(text.encode())
    for name, data in files[1].items():
        (secret / name).write_bytes(data)
    return job, secret


@settings(deadline=None)
@given(config=configs, credentials=secrets)
def test_store_and_credentials_come_back_as_they_were(config: StoreConfig, credentials: Credentials) -> None:
    with TemporaryDirectory() as directory:
        job, secret = mounted(Path(directory), mounts.job_files(SPEC, config, credentials))
        read = mounts.read_store_config(job, secret)
        if credentials:
            assert read.credentials() == credentials
        for name in ("registry", "namespace", "plain_http", "concurrency", "mutable_tags", "token_hosts", "proxy"):
            assert getattr(read, name) == getattr(config, name), name
        assert mounts.read_spec(job) == SPEC
        assert mounts.read_spec(job).digest == SPEC.digest


@settings(deadline=None)
@given(secret=texts)
def test_nothing_secret_is_in_the_config_map(secret: str) -> None:
    marked = f"SECRET{secret}"
    config = StoreConfig(registry=HOST, username="robot", password=marked, proxy=f"http://user:{marked}@proxy:1")
    job, _ = mounts.job_files(SPEC, config)
    assert "SECRET" not in json.dumps(job)
    assert base64.b64encode(f"robot:{marked}".encode()).decode() not in json.dumps(job)


def test_the_docker_config_is_one_that_a_kubelet_takes() -> None:
    config = StoreConfig(registry=HOST, username="robot", password="a:b")
    _, secret = mounts.job_files(SPEC, config)
    assert json.loads(secret[".dockerconfigjson"]) == {
        "auths": {HOST: {"username": "robot", "password": "a:b", "auth": base64.b64encode(b"robot:a:b").decode()}}
    }
    _, secret = mounts.job_files(SPEC, StoreConfig(registry="docker.io"), Credentials(identity_token="t"))
    assert json.loads(secret[".dockerconfigjson"]) == {"auths": {"https://index.docker.io/v1/": {"identitytoken": "t"}}}


def test_what_docker_knows_on_this_machine_goes_along(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"docker:secret").decode()}, "other": {}}}))
    files = mounts.job_files(SPEC, StoreConfig(registry=HOST, docker_config=path))
    read = mounts.read_store_config(*mounted(tmp_path, files))
    assert read.credentials() == Credentials("docker", "secret")
    assert b"other" not in files[1][".dockerconfigjson"]


def test_what_is_not_set_has_no_file(tmp_path: Path) -> None:
    files = mounts.job_files(SPEC, StoreConfig(registry=HOST), Credentials())
    assert (sorted(files[0]), files[1]) == (["spec.json", "store.json"], {})
    read = mounts.read_store_config(*mounted(tmp_path, files))
    assert read == StoreConfig(registry=HOST)


def test_files_for_tls_and_signing_go_along(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(f"{name} file")
    config = StoreConfig(
        registry=HOST, ca_bundle=tmp_path / "ca", client_cert=tmp_path / "cert", client_key=tmp_path / "key"
    )
    files = mounts.job_files(SPEC, config, Credentials(), signing_key=b"private")
    assert files[0]["ca.crt"] == "ca file"
    assert files[1] == {"client.crt": b"cert file", "client.key": b"key file", "signing.pem": b"private"}
    job, secret = mounted(tmp_path, files)
    read = mounts.read_store_config(job, secret)
    assert (read.ca_bundle, read.client_cert, read.client_key) == (
        job / "ca.crt",
        secret / "client.crt",
        secret / "client.key",
    )


def test_the_same_job_has_the_same_files() -> None:
    config = StoreConfig(registry=HOST, username="u", password="p")
    assert mounts.job_files(SPEC, config) == mounts.job_files(WorkloadSpec.of(**SPEC.model_dump()), config)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "give the connection a registry".capitalize()),
        ({"registry": HOST, "ca_bundle": Path("/nowhere/ca.pem")}, "Cannot read /nowhere/ca.pem: No such file"),
        ({"registry": HOST, "ca_bundle": Path("/")}, "Put them into one file"),
    ],
)
def test_what_no_pod_can_use_is_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        mounts.job_files(SPEC, StoreConfig(**config), Credentials())
    assert told in str(caught.value)


def test_more_than_a_config_map_holds_is_refused() -> None:
    large = SPEC.model_copy(update={"config": {"text": "x" * 1024 * 1024}})
    with pytest.raises(InvalidInput, match=r"Kubernetes takes 1048576\. Put what is large into an input"):
        mounts.job_files(large, StoreConfig(registry=HOST), Credentials())


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "registry: Field required"),
        ('{"registry": ""}', "names no registry"),
        ('{"registry": "a.b", "colour": 1}', r"colour: unknown name.* Use an image with the version"),
        ('{"registry": "a.b", "plain_http": "no"}', "plain_http: "),
    ],
)
def test_a_store_file_that_cannot_be_used_is_named(tmp_path: Path, store: str, told: str) -> None:
    (tmp_path / "store.json").write_text(store)
    with pytest.raises(InvalidInput, match=told):
        mounts.read_store_config(tmp_path, tmp_path)


def test_a_file_without_a_suffix_is_the_config_itself_and_not_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "auth"
    path.write_text(json.dumps({"auths": {HOST: {"username": "u", "password": "p"}}}))
    assert StoreConfig(registry=HOST, docker_config=path).credentials() == Credentials("u", "p")
