"""The connection type ``kitops``: which store of ModelKits a DAG talks to."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import mask_secret
from airflow.sdk import BaseHook

from airflow_provider_kitops.get_provider_info import CONNECTION_FIELDS, CONNECTION_FORM
from airflow_provider_kitops.hooks._describe import describe
from airflow_provider_kitops.hooks._errors import airflow_errors
from airflow_provider_kitops.hooks._references import ReferenceLike, reference_text
from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError, NotFound

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_kitops.oci.store import Store, StoreConfig

_PATHS = ("layout", "ca_bundle", "client_cert", "client_key", "docker_config")
_RAISE: Any = object()


class KitopsHook(BaseHook):
    """
    Reach the registry or local layout that an Airflow connection of type ``kitops`` names.

    Connection fields:
        - **host** (and **port**): the registry, ``host[:port]``; empty means the local layout
        - **login**, **password**: credentials; without them Docker's config files and helpers are asked
        - **extra**: ``layout``, ``namespace``, ``identity_token``, ``plain_http``, ``ca_bundle``, ``client_cert``,
          ``client_key``, ``docker_config``, ``proxy``, ``token_hosts``, ``mutable_tags``, ``concurrency``. An empty
          value is the same as none; any other key is an error.

    Errors of its methods are Airflow's, so that an ``@task`` that calls them is not retried in vain:
    ``AirflowFailException`` for what a retry cannot cure (unknown tag, wrong credentials, a connection that cannot be
    used), ``AirflowException`` for what it may. What the store itself raises are the errors of ``oci.errors``; their
    ``transient`` says the same.

    :param kitops_conn_id: id of the connection.
    """

    conn_name_attr = "kitops_conn_id"
    default_conn_name = "kitops_default"
    conn_type = "kitops"
    hook_name = "KitOps"

    def __init__(self, kitops_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kitops_conn_id = kitops_conn_id

    @airflow_errors()
    def config(self) -> StoreConfig:
        """
        Read the connection.

        :raises AirflowFailException: it holds something that cannot be used; the message names all of it.
        """
        return store_config(self.get_connection(self.kitops_conn_id))

    @airflow_errors()
    def store(self) -> Store:
        """
        Open the store that the connection names. Use it as a context manager.

        :raises AirflowFailException: the connection holds something that cannot be used.
        """
        return self._open()

    def get_conn(self) -> Store:
        """Open the store; the same as :meth:`store`, by the name that Airflow uses."""
        return self.store()

    @airflow_errors()
    def resolve(self, reference: ReferenceLike, default: Any = _RAISE) -> Any:
        """
        Pin a tag to the digest that it names now.

        :param reference: ``repository:tag``, a reference by digest, or the output of an operator.
        :param default: what to return if there is no such tag or repository.
        :return: the dictionary that every operator returns, or ``default``.
        :raises AirflowFailException: there is no such manifest and no default was given; or another error that a
            retry cannot cure.
        :raises AirflowException: the registry is away, or asks to slow down.
        """
        with self._open() as store:
            try:
                return describe(store, reference_text(reference, "reference"))
            except NotFound:
                if default is _RAISE:
                    raise
                return default

    def test_connection(self) -> tuple[bool, str]:
        """Make one real, authenticated call (or look whether the local layout can be written)."""
        try:
            with self._open() as store:
                return True, store.check()
        except KitopsError as error:
            return False, str(error)

    def _open(self) -> Store:
        from airflow_provider_kitops.oci.store import Store

        return Store(store_config(self.get_connection(self.kitops_conn_id)))

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Say how the form treats the standard fields (Airflow 3.1; later versions read the provider's metadata)."""
        return {key.replace("-", "_"): value for key, value in CONNECTION_FORM.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Build the form's own fields (Airflow 3.1; later versions read the provider's metadata)."""
        from wtforms import BooleanField, IntegerField, PasswordField, StringField  # type: ignore[import-untyped]

        def widget(field: Mapping[str, Any]) -> Any:
            schema = field["schema"]
            kinds = {"boolean": BooleanField, "integer": IntegerField}
            kind = PasswordField if schema.get("format") == "password" else kinds.get(schema["type"][0], StringField)
            return kind(field["label"], description=field["description"])

        return {name: widget(field) for name, field in CONNECTION_FIELDS.items()}


def store_config(connection: Connection) -> StoreConfig:
    """
    Turn an Airflow connection into the settings of a store.

    :param connection: a connection of type ``kitops``.
    :raises InvalidInput: a field cannot be used; the message names all that are wrong, and no value of a secret.
    """
    from airflow_provider_kitops.oci.store import StoreConfig

    where = f"Connection {connection.conn_id!r}"
    if connection.conn_type != KitopsHook.conn_type:
        raise InvalidInput(
            f"{where} has type {connection.conn_type!r}, not {KitopsHook.conn_type!r}.",
            hint="Choose the type KitOps in the connection's form, or begin its URI with kitops://.",
        )
    if connection.extra and not isinstance(connection.extra_dejson, dict):
        raise InvalidInput(f"The extra of {where} is not a JSON object.")
    if connection.extra and not connection.extra_dejson and connection.extra.strip() not in ("{}", "null"):
        raise InvalidInput(f"The extra of {where} is not valid JSON.")
    extra = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}

    problems: list[str] = []
    unknown = sorted(extra.keys() - CONNECTION_FIELDS.keys())
    for key in unknown:
        near = difflib.get_close_matches(key, CONNECTION_FIELDS, n=1)
        problems.append(f"unknown key {key!r} in extra" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if connection.schema:
        problems.append("a schema, which has no meaning here (a repository prefix is the extra 'namespace')")

    values: dict[str, Any] = {
        "registry": _registry(connection, problems),
        "username": connection.login or "",
        "password": connection.password or "",
        "plain_http": _boolean(extra, "plain_http", problems),
        **{key: _path(extra, key, problems) for key in _PATHS},
    }
    for key in ("namespace", "identity_token", "proxy"):
        if not isinstance(extra.get(key, ""), str):
            problems.append(f"{key} in extra is not text")
        values[key] = str(extra.get(key, ""))
    if "concurrency" in extra:
        values["concurrency"] = _positive(extra, "concurrency", problems)
    for key in ("mutable_tags", "token_hosts"):
        if key in extra:
            values[key] = _words(extra, key, problems)
    if problems:
        hint = f"Extra may hold {', '.join(CONNECTION_FIELDS)}." if unknown else ""
        raise InvalidInput(f"{where}: {'; '.join(problems)}.", hint=hint)
    if values["proxy"]:
        mask_secret(values["proxy"])  # it may carry credentials, and its key is not one that Airflow masks
    return StoreConfig(**values)


def _registry(connection: Connection, problems: list[str]) -> str:
    host = (connection.host or "").strip()
    if "@" in host:  # what stands before it may be a password, so the host is not quoted
        problems.append("a host with credentials; give host[:port], login and password")
        return ""
    scheme, found, _ = host.partition("://")
    if found and scheme.lower() in ("http", "https"):
        also = " and set plain_http in extra" if scheme.lower() == "http" else ""
        problems.append(f"host {host!r}, which is not host[:port]: leave out {scheme}://{also}")
    elif "/" in host:
        problems.append(f"host {host!r}, which is not host[:port]")
    if connection.port and host:
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit() and not name.endswith(":"):
            if int(port) != connection.port:
                problems.append(f"port {connection.port} beside a host that names port {port}")
            return host
        return f"{host}:{connection.port}"
    if connection.port:
        problems.append("a port without a host")
    return host


def _boolean(extra: Mapping[str, Any], key: str, problems: list[str]) -> bool:
    value = extra.get(key, False)
    text = str(value).strip().lower()  # a connection written as a URI holds text only
    if text not in ("true", "false", "1", "0", "yes", "no"):
        problems.append(f"{key} in extra is neither true nor false")
    return text in ("true", "1", "yes")


def _positive(extra: Mapping[str, Any], key: str, problems: list[str]) -> int:
    try:
        number = int(str(extra[key]))
    except ValueError:
        number = 0
    if number < 1:
        problems.append(f"{key} in extra is not a positive whole number")
    return number


def _words(extra: Mapping[str, Any], key: str, problems: list[str]) -> tuple[str, ...]:
    value = extra[key]
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        problems.append(f"{key} in extra is neither text nor a list of texts")
        return ()
    return tuple(words)


def _path(extra: Mapping[str, Any], key: str, problems: list[str]) -> Path | None:
    value = extra.get(key)
    if value is None:
        return None
    path = Path(str(value)).expanduser()
    if not path.is_absolute():
        problems.append(f"{key} in extra is not an absolute path (tasks run in directories of their own)")
    return path
