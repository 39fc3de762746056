"""The button that opens a ModelKit's page in its registry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_kitops.get_provider_info import get_provider_info
from airflow_provider_kitops.links._pages import page_of
from airflow_provider_kitops.links.modelkit import ModelKitLink
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators.pack import KitPackOperator

DIGEST = f"sha256:{'0' * 64}"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
GOOGLE = "https://console.cloud.google.com/artifacts/docker"


@pytest.mark.parametrize(
    ("reference", "page"),
    [
        ("docker.io/news/classifier:v1", "https://hub.docker.com/r/news/classifier/tags?name=v1"),
        (f"docker.io/news/classifier@{DIGEST}", "https://hub.docker.com/r/news/classifier/tags"),
        ("registry-1.docker.io/library/model:v1", "https://hub.docker.com/_/model/tags?name=v1"),
        (f"ghcr.io/news/classifier@{DIGEST}", "https://ghcr.io/news/classifier"),
        ("ghcr.io/news/models/classifier:v1", "https://ghcr.io/news/models/classifier"),
        ("quay.io/news/classifier:v1", "https://quay.io/repository/news/classifier?tab=tags"),
        (f"quay.io/news/classifier@{DIGEST}", f"https://quay.io/repository/news/classifier/manifest/{DIGEST}"),
        ("registry.gitlab.com/news/classifier:v1", "https://gitlab.com/news/classifier/container_registry"),
        (
            f"{ECR}/news/classifier:v1",
            "https://eu-west-1.console.aws.amazon.com/ecr/repositories/private/123456789012/news/classifier"
            "?region=eu-west-1",
        ),
        ("public.ecr.aws/news/classifier:v1", "https://gallery.ecr.aws/news/classifier"),
        (
            "europe-west6-docker.pkg.dev/my-project/models/classifier:v1",
            f"{GOOGLE}/my-project/europe-west6/models/classifier?project=my-project",
        ),
        (
            "us-docker.pkg.dev/my-project/models/news/classifier:v1",
            f"{GOOGLE}/my-project/us/models/news%2Fclassifier?project=my-project",
        ),
        ("jozu.ml/news/classifier:v1", "https://jozu.ml/repository/news/classifier/v1"),
        (f"JOZU.ml/news/classifier@{DIGEST}", "https://jozu.ml/repository/news/classifier"),
    ],
)
def test_a_reference_has_a_page_where_the_registry_has_one(reference: str, page: str) -> None:
    assert page_of(reference) == page


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "not a reference",
        "news/classifier:v1",
        DIGEST,
        "127.0.0.1:5000/news/classifier:v1",
        "harbor.example.com/news/classifier:v1",
        "news.azurecr.io/classifier:v1",
        "docker.io/a/b/c:v1",
        "ghcr.io/classifier:v1",
        "quay.io/classifier:v1",
        "registry.gitlab.com/group/project/image:v1",
        "us-docker.pkg.dev/my-project/models:v1",
        "evil.us-docker.pkg.dev/my-project/models/m:v1",
        "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com/classifier:v1",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/classifier:v1",
        "docker.io.example.com/news/classifier:v1",
        "docker.io:5000/news/classifier:v1",
    ],
)
def test_what_has_no_page_that_is_known_has_none(reference: str) -> None:
    assert page_of(reference) is None


def test_a_tag_beside_a_digest_counts_if_it_is_one() -> None:
    assert page_of(f"jozu.ml/news/classifier@{DIGEST}", "v1") == "https://jozu.ml/repository/news/classifier/v1"
    assert page_of(f"jozu.ml/news/classifier@{DIGEST}", "../evil") is None


@pytest.mark.parametrize(
    ("answer", "link"),
    [
        (
            {"reference": f"jozu.ml/news/classifier@{DIGEST}", "tags": ["v1", "latest"]},
            "https://jozu.ml/repository/news/classifier/v1",
        ),
        ({"reference": f"jozu.ml/news/classifier@{DIGEST}", "tags": []}, "https://jozu.ml/repository/news/classifier"),
        ({"reference": f"jozu.ml/news/classifier@{DIGEST}"}, "https://jozu.ml/repository/news/classifier"),
        ({"reference": "news/classifier:v1"}, ""),
        ({"reference": 5}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_link_is_that_of_what_the_task_returned(monkeypatch: pytest.MonkeyPatch, answer: Any, link: str) -> None:
    asked: list[Any] = []

    def get_value(*, ti_key: Any, key: str) -> Any:
        asked.append((ti_key, key))
        return answer

    monkeypatch.setattr(XCom, "get_value", get_value)
    key: Any = SimpleNamespace(task_id="pack")
    operator: Any = SimpleNamespace()
    assert ModelKitLink().get_link(operator, ti_key=key) == link
    assert asked == [(key, "return_value")]


def test_airflow_learns_of_the_link_from_provider_and_operators() -> None:
    (name,) = get_provider_info()["extra-links"]
    assert name == f"{ModelKitLink.__module__}.{ModelKitLink.__qualname__}"
    assert [type(link) for link in KitopsBaseOperator.operator_extra_links] == [ModelKitLink]
    operator = KitPackOperator(task_id="pack", context_directory="/x", reference="demo/model:v1")
    assert [link.name for link in operator.operator_extra_links] == ["Open in the registry"]
