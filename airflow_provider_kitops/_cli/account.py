"""Credentials of a registry: login."""

from __future__ import annotations

import argparse

from airflow_provider_kitops._cli.options import Verbs, add_verb
from airflow_provider_kitops._cli.session import Session
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    login = add_verb(
        verbs,
        "login",
        _login,
        "check credentials and keep them for a registry",
        "Check credentials with a call to the registry, then keep them where Docker does: in its credential helper, "
        "or else in its config file.",
    )
    login.add_argument("registry", metavar="REGISTRY", help="host[:port]")


def _login(session: Session, options: argparse.Namespace) -> int:
    registry = options.registry
    if not registry or "/" in registry or "@" in registry:
        raise InvalidReference(f"{registry!r} is no registry.", hint="Write host[:port], without a scheme or a path.")
    if not options.username and not options.password_stdin:
        raise InvalidInput(
            f"Cannot log in to {registry}: no credentials.",
            hint="Give --username, and the password with --password-stdin or when asked.",
        )
    from airflow_provider_kitops.oci.credentials import Credentials, docker_config_file, save_credentials

    said = session.store(registry).check()
    secret = session.password()
    credentials = Credentials(options.username, secret) if options.username else Credentials(identity_token=secret)
    where = save_credentials(registry, credentials, docker_config_file(options.docker_config))
    session.answer({"registry": registry, "username": options.username, "kept_in": where}, f"{said}\nkept in {where}")
    return 0
