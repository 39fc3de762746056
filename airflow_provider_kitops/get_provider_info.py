"""What Airflow learns about this provider without importing it."""

from __future__ import annotations

from typing import Any

#: Fields of the connection's extra, in the order of the form. Airflow 3.2 and later build the form from this;
#: ``KitopsHook.get_connection_form_widgets`` builds it for 3.1.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "layout": {
        "label": "Local layout",
        "description": "Absolute path of the local store, used when Registry is empty. Empty: $MODELKIT_LAYOUT, "
        "else the user's data directory.",
        "schema": {"type": ["string", "null"]},
    },
    "namespace": {
        "label": "Namespace",
        "description": "Prefix put before repositories that a DAG names without a registry, such as team/models.",
        "schema": {"type": ["string", "null"]},
    },
    "plain_http": {
        "label": "Plain HTTP",
        "description": "Talk http:// to the registry. Credentials then travel unencrypted.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "ca_bundle": {
        "label": "CA bundle",
        "description": "Absolute path of a PEM file with the certificate authorities to trust.",
        "schema": {"type": ["string", "null"]},
    },
    "client_cert": {
        "label": "Client certificate",
        "description": "Absolute path of a PEM certificate for mutual TLS.",
        "schema": {"type": ["string", "null"]},
    },
    "client_key": {
        "label": "Client key",
        "description": "Absolute path of the certificate's PEM key, if it is not in the same file.",
        "schema": {"type": ["string", "null"]},
    },
    "identity_token": {
        "label": "Identity token",
        "description": "OAuth2 refresh token, used instead of a password.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "docker_config": {
        "label": "Docker config",
        "description": "Absolute path of a Docker config.json, asked for credentials when Login is empty. "
        "Empty: the files and helpers that Docker itself asks.",
        "schema": {"type": ["string", "null"]},
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of the proxy for this registry; may hold credentials.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "token_hosts": {
        "label": "Token hosts",
        "description": "Hosts of token services outside the registry's domain that may be told the credentials, "
        "separated by spaces, such as auth.example.com. Empty: none.",
        "schema": {"type": ["string", "null"]},
    },
    "mutable_tags": {
        "label": "Mutable tags",
        "description": "Patterns of the tags that may move to another digest, separated by spaces. "
        "Empty: latest champion challenger staging. All other tags never move.",
        "schema": {"type": ["string", "null"]},
    },
    "concurrency": {
        "label": "Concurrency",
        "description": "Blobs to transfer at the same time. Empty: 5.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
}

#: How the form treats the fields that every connection has.
CONNECTION_FORM: dict[str, Any] = {
    "hidden-fields": ["schema", "port", "extra"],
    "relabeling": {"host": "Registry"},
    "placeholders": {
        "host": "harbor.example.com (empty: the local layout)",
        "login": "empty: Docker's config files and credential helpers",
    },
}

_PACKAGE = "airflow_provider_kitops"


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": "KitOps", "python-modules": [f"{_PACKAGE}.{name}" for name in names]}]


def get_provider_info() -> dict[str, Any]:
    """Metadata by the schema of ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-kitops",
        "name": "KitOps",
        "description": "Fine-tune models, judge them with a qualified LLM and promote them by digest; "
        "every model and dataset is a `ModelKit <https://kitops.org/>`__ in an OCI registry.",
        "integrations": [
            {"integration-name": "KitOps", "external-doc-url": "https://kitops.org/", "tags": ["ai", "software"]}
        ],
        "hooks": _modules("hooks.kitops"),
        "operators": _modules(
            "operators.pack",
            "operators.push",
            "operators.pull",
            "operators.copy",
            "operators.tag",
            "operators.untag",
            "operators.remove",
            "operators.unpack",
            "operators.inspection",
            "operators.workload",
            "operators.kubernetes",
            "operators.judge",
            "operators.gate",
            "operators.promote",
        ),
        "sensors": _modules("sensors.tag"),
        "triggers": _modules("triggers.tag", "triggers.job"),
        "connection-types": [
            {
                "connection-type": "kitops",
                "hook-class-name": f"{_PACKAGE}.hooks.kitops.KitopsHook",
                "hook-name": "KitOps",
                "ui-field-behaviour": CONNECTION_FORM,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "extra-links": [f"{_PACKAGE}.links.modelkit.ModelKitLink"],
        "config": {
            "kitops": {
                "description": "Settings of airflow-provider-kitops.",
                "options": {
                    "execution": {
                        "description": "Where ``operators.execution.execution()`` lets programs run: ``local``, as "
                        "subprocesses of the task, or ``kubernetes``, as Jobs of a cluster.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "local",
                        "default": "local",
                    },
                    "job": {
                        "description": "Settings of the Jobs that run programs on Kubernetes, as a JSON object of the "
                        "fields of ``JobSettings``. What a task sets itself goes over them.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": '{"namespace": "training", "gpu": 1, "memory": "32Gi"}',
                        "default": "",
                    },
                    "scratch_directory": {
                        "description": "Where tasks on this machine keep inputs, checkpoints and journals until they "
                        "are done, so that a killed task resumes when it is cleared or retried. It must be on a disk "
                        "that outlives the task, and be shared by the workers if a retry may run on another one. "
                        "Empty: ``kitops/scratch`` below ``AIRFLOW_HOME``.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/airflow/kitops",
                        "default": "",
                    },
                },
            }
        },
    }
