"""Which page of a registry's website shows an artifact.

Only registries whose addresses can be made from a reference alone, and are known to be stable. Harbor's hold the
number of a project, the Azure portal's a subscription, GitLab's cannot tell a project from an image below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.reference import Reference, is_tag


def page_of(reference: str, tag: str = "") -> str | None:
    """
    The page of an artifact on its registry's website.

    :param reference: ``registry/repository[:tag][@digest]``.
    :param tag: a tag that it has, if the reference names none.
    :return: an https address; ``None`` for a local layout, a registry that is not known, or what is no reference.
    """
    try:
        where = Reference.parse(reference)
    except InvalidReference:
        return None
    if tag and not is_tag(tag):
        return None
    for host, page in _PAGES.items():
        found = re.fullmatch(host, where.registry.lower())
        if found:
            return page(found, where, where.tag or tag)
    return None


_Page = Callable[[re.Match[str], Reference, str], str | None]


def _docker_hub(host: re.Match[str], where: Reference, tag: str) -> str | None:
    owner, _, name = where.repository.rpartition("/")
    if "/" in owner:
        return None
    page = f"_/{name}" if owner in ("", "library") else f"r/{owner}/{name}"
    return f"https://hub.docker.com/{page}/tags" + (f"?name={tag}" if tag else "")


def _github(host: re.Match[str], where: Reference, tag: str) -> str | None:
    # GHCR itself sends a browser on to the package's page, which is at another address for a user than for an
    # organisation.
    return f"https://ghcr.io/{where.repository}" if "/" in where.repository else None


def _quay(host: re.Match[str], where: Reference, tag: str) -> str | None:
    if where.repository.count("/") != 1:
        return None
    page = f"https://quay.io/repository/{where.repository}"
    return f"{page}/manifest/{where.digest}" if where.digest else f"{page}?tab=tags"


def _gitlab(host: re.Match[str], where: Reference, tag: str) -> str | None:
    # With more parts nobody can tell where the project ends and the image begins.
    if where.repository.count("/") != 1:
        return None
    return f"https://gitlab.com/{where.repository}/container_registry"


def _ecr(host: re.Match[str], where: Reference, tag: str) -> str | None:
    region = host["region"]
    return (
        f"https://{region}.console.aws.amazon.com/ecr/repositories/private/{host['account']}/{where.repository}"
        f"?region={region}"
    )


def _ecr_public(host: re.Match[str], where: Reference, tag: str) -> str | None:
    return f"https://gallery.ecr.aws/{where.repository}" if "/" in where.repository else None


def _google(host: re.Match[str], where: Reference, tag: str) -> str | None:
    parts = where.repository.split("/")
    if len(parts) < 3:
        return None
    project, repository, *image = parts
    name = quote("/".join(image), safe="")
    return (
        f"https://console.cloud.google.com/artifacts/docker/{project}/{host['location']}/{repository}/{name}"
        f"?project={project}"
    )


def _jozu(host: re.Match[str], where: Reference, tag: str) -> str | None:
    if where.repository.count("/") != 1:
        return None
    return f"https://jozu.ml/repository/{where.repository}" + (f"/{tag}" if tag else "")


#: Pages by the registry's host, as a pattern of the whole of it.
_PAGES: dict[str, _Page] = {
    r"docker\.io|index\.docker\.io|registry-1\.docker\.io": _docker_hub,
    r"ghcr\.io": _github,
    r"quay\.io": _quay,
    r"registry\.gitlab\.com": _gitlab,
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>(?!us-gov-)[a-z]{2}-[a-z]+-\d)\.amazonaws\.com": _ecr,
    r"public\.ecr\.aws": _ecr_public,
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev": _google,
    r"jozu\.ml": _jozu,
}
