"""The Kitfile: what a ModelKit is made of (KitOps Kitfile format, manifestVersion 1.0.0)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from airflow_provider_kitops.modelkit import _document, _gojson
from airflow_provider_kitops.modelkit._document import Entries, Items, Node, Scalar
from airflow_provider_kitops.modelkit._dumper import FlowList, dump
from airflow_provider_kitops.modelkit._paths import is_modelkit_reference
from airflow_provider_kitops.oci.descriptor import MAX_MANIFEST_SIZE, is_text
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile

#: Names under which a Kitfile is looked for in a context directory, in this order.
KITFILE_NAMES = ("Kitfile", "kitfile", ".kitfile")


class LayerKind(Enum):
    """What a layer holds; the value names the section of the Kitfile in filters."""

    MODEL = "model"
    MODEL_PART = "modelpart"
    CODE = "code"
    DATASET = "datasets"
    DOCS = "docs"
    PROMPT = "prompts"
    MCP_SERVER = "mcpServers"


@dataclass(frozen=True)
class Package:
    """The section ``package``: what the ModelKit is as a whole."""

    name: str = ""
    version: str = ""
    description: str = ""
    license: str = ""
    authors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelPart:
    """One entry of ``model.parts``: files beside the weights, such as an adapter or a tokenizer."""

    name: str = ""
    path: str = ""
    license: str = ""
    type: str = ""


@dataclass(frozen=True)
class Model:
    """The section ``model``.

    :param path: file or directory below the context, or the reference of the ModelKit that this one is based on.
    :param parameters: any JSON value.
    """

    name: str = ""
    path: str = ""
    license: str = ""
    framework: str = ""
    format: str = ""
    version: str = ""
    description: str = ""
    parts: tuple[ModelPart, ...] = ()
    parameters: Any = None


@dataclass(frozen=True)
class Code:
    """One entry of ``code``."""

    path: str = ""
    description: str = ""
    license: str = ""


@dataclass(frozen=True)
class Dataset:
    """One entry of ``datasets``.

    :param remote_path: ``s3://`` address or ModelKit reference, for data that no layer carries.
    :param remote_hash: SHA-256 of the object at an ``s3://`` address.
    :param parameters: any JSON value.
    """

    name: str = ""
    path: str = ""
    remote_path: str = ""
    remote_hash: str = ""
    description: str = ""
    license: str = ""
    parameters: Any = None


@dataclass(frozen=True)
class Docs:
    """One entry of ``docs``."""

    path: str = ""
    description: str = ""


@dataclass(frozen=True)
class Prompt:
    """One entry of ``prompts``."""

    name: str = ""
    path: str = ""
    description: str = ""


@dataclass(frozen=True)
class McpServer:
    """One entry of ``mcpServers``."""

    name: str = ""
    path: str = ""
    description: str = ""


Section = Package | ModelPart | Model | Code | Dataset | Docs | Prompt | McpServer
LayerEntry = Model | ModelPart | Code | Dataset | Docs | Prompt | McpServer


@dataclass(frozen=True)
class LayerIds:
    """Digests of one layer as the config records them.

    :param digest: of the blob.
    :param diff_id: of the tar stream before compression.
    """

    digest: str
    diff_id: str


@dataclass(frozen=True)
class Kitfile:
    """A whole Kitfile. Built by ``parse_kitfile`` or in code; ``pack`` checks it in both cases."""

    manifest_version: str = "1.0.0"
    package: Package = Package()
    model: Model | None = None
    code: tuple[Code, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    docs: tuple[Docs, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()

    @property
    def base_reference(self) -> str | None:
        """The reference of the ModelKit that this one is based on, if ``model.path`` names one."""
        return self.model.path if self.model and is_modelkit_reference(self.model.path) else None

    def entries(self) -> Iterator[tuple[LayerKind, LayerEntry]]:
        """The entries that a layer stands for, in the order of the layers in a manifest."""
        if self.model:
            if self.model.path and self.base_reference is None:
                yield LayerKind.MODEL, self.model
            yield from ((LayerKind.MODEL_PART, part) for part in self.model.parts)
        yield from ((LayerKind.CODE, code) for code in self.code)
        yield from ((LayerKind.DATASET, dataset) for dataset in self.datasets if not dataset.remote_path)
        yield from ((LayerKind.DOCS, docs) for docs in self.docs)
        yield from ((LayerKind.PROMPT, prompt) for prompt in self.prompts)
        yield from ((LayerKind.MCP_SERVER, server) for server in self.mcp_servers)

    def to_yaml(self) -> str:
        """The Kitfile as YAML, keys in kit's order; parsing it gives an equal Kitfile."""
        document = _plain(self, {})
        if self.package == Package():
            del document["package"]
        return dump(document)

    def to_config_json(self, layers: Sequence[LayerIds] = ()) -> bytes:
        """The config of a ModelKit (``application/vnd.kitops.modelkit.config.v1+json``), byte for byte as kit does.

        :param layers: digests of the layers, in the order of ``entries()``; empty for the Kitfile alone.
        :raises InvalidKitfile: ``parameters`` hold something that JSON has no form for.
        """
        ids: dict[int, LayerIds] = {}
        if layers:
            ids = {id(entry): found for (_, entry), found in zip(self.entries(), layers, strict=True)}
        try:
            return _gojson.dumps(_plain(self, ids))
        except InvalidInput as error:
            raise InvalidKitfile(f"The parameters of this Kitfile cannot be stored. {error}") from error


def parse_kitfile(text: str | bytes, *, name: str = "Kitfile") -> Kitfile:
    """Read a Kitfile as kit does: first document only, unknown keys refused, scalars of YAML 1.2's core schema.

    :param name: what to call it in messages.
    :raises InvalidKitfile: with every error that was found, each with its line.
    """
    from airflow_provider_kitops.modelkit._rules import broken_rules

    if len(text) > MAX_MANIFEST_SIZE:
        raise InvalidKitfile(f"{name} is larger than {MAX_MANIFEST_SIZE} bytes.")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        node = _document.parse_yaml(decoded.removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise InvalidKitfile(f"{name} is not UTF-8: byte {error.start} cannot be decoded.") from error
    except _document.DocumentError as error:
        raise InvalidKitfile(f"{name} is not valid YAML: {error}.") from error
    if node is None or (isinstance(node, Scalar) and node.value is None):
        raise InvalidKitfile(f"{name} is empty.", hint="It needs at least manifestVersion and package.")
    builder = _Builder()
    kitfile = builder.kitfile(node)
    errors = list(builder.errors)
    if not errors:
        errors = [(builder.lines.get(rule.where, 0), rule.text) for rule in broken_rules(kitfile)]
    if errors:
        raise InvalidKitfile(_listed(name, errors))
    return kitfile


def check_kitfile(kitfile: Kitfile, *, name: str = "Kitfile") -> None:
    """Check the rules that a Kitfile built in code may break.

    :raises InvalidKitfile: with every broken rule.
    """
    from airflow_provider_kitops.modelkit._rules import broken_rules

    errors = [(0, rule.text) for rule in broken_rules(kitfile)]
    if errors:
        raise InvalidKitfile(_listed(name, errors))


def parse_config(data: bytes) -> tuple[Kitfile, tuple[LayerIds | None, ...]]:
    """Read a ModelKit's config: the Kitfile and, in the order of ``entries()``, the digests of its layers.

    Unknown keys are passed over, so that configs of later versions stay readable.

    :raises InvalidKitfile: not JSON, or a field has another type than the format says.
    """
    try:
        # A negative zero is written without a fraction, and no integer.
        value = json.loads(data, parse_int=lambda text: -0.0 if text == "-0" else int(text))
    except (ValueError, RecursionError) as error:
        raise InvalidKitfile(f"The config of this ModelKit is not JSON: {error}.") from error
    builder = _Builder(strict=False)
    kitfile = builder.kitfile(_document.from_json(value))
    if builder.errors:
        raise InvalidKitfile(_listed("The config of this ModelKit", builder.errors))
    return kitfile, tuple(builder.ids.get(id(entry)) for _, entry in kitfile.entries())


def find_kitfile(context: Path) -> Path:
    """The Kitfile of a context directory.

    :raises InvalidInput: there is none.
    """
    with storage_errors("look for a Kitfile in", context):
        for name in KITFILE_NAMES:
            if (context / name).is_file():
                return context / name
    raise InvalidInput(
        f"There is no Kitfile in {context}.", hint=f"Write one ({', '.join(KITFILE_NAMES)}), or name another file."
    )


def read_kitfile(path: Path) -> Kitfile:
    """Read and parse the Kitfile at ``path``.

    :raises InvalidInput: it does not exist.
    :raises InvalidKitfile: it breaks a rule.
    """
    if not path.exists():
        raise InvalidInput(f"The Kitfile {path} does not exist.")
    with storage_errors("read the Kitfile", path):
        data = path.read_bytes()
    return parse_kitfile(data, name=str(path))


def _listed(name: str, errors: Sequence[tuple[int, str]]) -> str:
    lines = [f"line {line}: {text}" if line else text for line, text in sorted(set(errors))]
    if len(lines) == 1:
        return f"{name}: {lines[0]}"
    return f"{name} has {len(lines)} errors:" + "".join(f"\n  * {line}" for line in lines)


#: Keys that differ from the attribute's name.
_KEYS = {
    "manifest_version": "manifestVersion",
    "mcp_servers": "mcpServers",
    "remote_path": "remotePath",
    "remote_hash": "remoteHash",
}
_LISTS: dict[str, type[Section]] = {
    "parts": ModelPart,
    "code": Code,
    "datasets": Dataset,
    "docs": Docs,
    "prompts": Prompt,
    "mcp_servers": McpServer,
}
_NESTED: dict[str, type[Section]] = {"package": Package, "model": Model}

#: Written even when empty, as kit writes them.
_ALWAYS = {(Kitfile, "manifest_version"), (Kitfile, "package"), (Docs, "path")}

#: Where in a Kitfile something is, such as ``("model", "parts", 0, "path")``.
Where = tuple[str | int, ...]


def _key(attribute: str) -> str:
    return _KEYS.get(attribute, attribute)


class _Builder:
    """Turns a document into a Kitfile and collects what is wrong with it."""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.errors: list[tuple[int, str]] = []
        self.lines: dict[Where, int] = {}
        self.ids: dict[int, LayerIds] = {}

    def kitfile(self, node: Node) -> Kitfile:
        values = self._fields(node, Kitfile, ())
        if self.strict:
            values.setdefault("manifest_version", "")
        return Kitfile(**values)

    def _section(self, node: Node, kind: type[Section], where: Where) -> Section:
        values = self._fields(node, kind, where)
        made = kind(**values)
        if not self.strict and isinstance(node, Entries):
            found = {key.text: value.value for key, value in node.items if isinstance(value, Scalar)}
            digest, diff_id = found.get("digest"), found.get("diffId")
            if isinstance(digest, str) and digest:
                self.ids[id(made)] = LayerIds(digest, diff_id if isinstance(diff_id, str) and diff_id else digest)
        return made

    def _fields(self, node: Node, kind: type[Section] | type[Kitfile], where: Where) -> dict[str, Any]:
        name = ".".join(str(part) for part in where) or "the Kitfile"
        if not isinstance(node, Entries):
            if not (isinstance(node, Scalar) and node.value is None):
                self._error(node.line, f"{name} must be a mapping of keys to values")
            return {}
        known = {_key(field.name): field.name for field in fields(kind)}
        values: dict[str, Any] = {}
        for key, value in node.items:
            attribute = known.get(key.text)
            if attribute is None:
                if self.strict:
                    near = difflib.get_close_matches(key.text, known, 1)
                    hint = f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"
                    self._error(key.line, f"unknown key {key.text} in {name}{hint}")
                continue
            here = (*where, key.text)
            self.lines[here] = key.line
            values[attribute] = self._value(value, attribute, here)
        return values

    def _value(self, node: Node, attribute: str, where: Where) -> Any:
        if attribute in _NESTED:
            if attribute == "model" and isinstance(node, Scalar) and node.value is None:
                return None
            return self._section(node, _NESTED[attribute], where)
        if attribute in _LISTS:
            kind = _LISTS[attribute]
            return self._list(node, where, lambda item, at: self._section(item, kind, at))
        if attribute == "authors":
            return self._list(node, where, self._text)
        if attribute == "parameters":
            return self._json(node, where)
        return self._text(node, where)

    def _list(self, node: Node, where: Where, convert: Callable[[Node, Where], Any]) -> tuple[Any, ...]:
        if isinstance(node, Items):
            # Empty list entries are passed over, as kit's decoder does.
            items = [item for item in node.items if not (isinstance(item, Scalar) and item.value is None)]
            return tuple(convert(item, (*where, index)) for index, item in enumerate(items))
        if not (isinstance(node, Scalar) and node.value is None):
            self._error(node.line, f"{'.'.join(map(str, where))} must be a list")
        return ()

    def _text(self, node: Node, where: Where) -> str:
        if not isinstance(node, Scalar):
            self._error(node.line, f"{'.'.join(map(str, where))} must be text")
            return ""
        if not is_text(node.text):
            self._error(node.line, f"{'.'.join(map(str, where))} holds half of a surrogate pair, which is no character")
            return ""
        return "" if node.value is None else node.text

    def _json(self, node: Node, where: Where) -> Any:
        name = ".".join(map(str, where))
        if isinstance(node, Items):
            return [self._json(item, (*where, index)) for index, item in enumerate(node.items)]
        if isinstance(node, Entries):
            found: dict[str, Any] = {}
            for key, value in node.items:
                if not isinstance(key.value, str):
                    self._error(key.line, f"the key {key.text} in {name} is not text; put it in quotes")
                    continue
                found[key.text] = self._json(value, (*where, key.text))
            return dict(sorted(found.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass")))
        if isinstance(node.value, float) and (node.value != node.value or abs(node.value) == float("inf")):
            self._error(node.line, f"{name} is {node.text}, which JSON has no form for")
        return node.value

    def _error(self, line: int, text: str) -> None:
        self.errors.append((line, text))


def _plain(value: Any, ids: Mapping[int, LayerIds]) -> Any:
    """Mappings and lists in kit's order of keys, without what kit leaves out."""
    document: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name == "parameters":
            item, empty = _sorted(item), item is None
        elif field.name in _NESTED:
            item, empty = (None if item is None else _plain(item, ids)), item is None
        elif field.name in _LISTS:
            item, empty = [_plain(entry, ids) for entry in item], not item
        else:
            item, empty = (list(item) if isinstance(item, tuple) else item), not item
        if not empty or (type(value), field.name) in _ALWAYS:
            document[_key(field.name)] = FlowList(item) if field.name == "authors" else item
    found = ids.get(id(value))
    if found:
        document |= {"digest": found.digest, "diffId": found.diff_id}
    return document


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: str(key).encode("utf-8", "surrogatepass"))
        return {key: _sorted(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
