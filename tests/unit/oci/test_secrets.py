"""What a registry may repeat, and no message, log or repr may."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kitops.oci._http import HttpSettings, RegistryClient
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import KitopsError
from tests.unit.oci.fake_server import Answer, FakeServer, Request


@pytest.mark.parametrize(
    "credentials",
    [Credentials("u", "pa55-of-ours"), Credentials(identity_token="id-of-ours")],
    ids=["user", "identity"],
)
def test_a_registry_that_repeats_what_it_was_not_sent_now_does_not_get_it_into_the_message(
    server: FakeServer, credentials: Credentials
) -> None:
    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, b'{"token": "t0ken-of-ours"}')
        if "Authorization" not in request.headers:
            return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="registry"'})
        said = f"known here: {credentials.password} {credentials.identity_token} {credentials.basic[6:]} t0ken-of-ours"
        return Answer(403, json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode())

    server.answer = answer
    host = server.url.partition("://")[2]
    client = RegistryClient(host, HttpSettings(plain_http=True), lambda: credentials)
    with pytest.raises(KitopsError, match="known here") as caught:
        client.request("GET", "/v2/a/tags/list", doing="list", scope="repository:a:pull")
    assert "of-ours" not in str(caught.value)
    if credentials.password:
        assert credentials.basic[6:] not in str(caught.value)


def test_the_password_of_a_proxy_is_not_shown() -> None:
    assert "hidden" not in repr(HttpSettings(proxy="http://user:hidden@proxy.example.com"))
