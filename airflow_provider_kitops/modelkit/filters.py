"""Which layers to unpack, in kit's grammar: ``type[,type…][:name-or-path[,…]]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_kitops.modelkit._paths import clean
from airflow_provider_kitops.modelkit.kitfile import LayerKind
from airflow_provider_kitops.modelkit.manifest import Layer
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.oci.errors import InvalidInput, NotFound

_KITFILE = "kitfile"
_TYPES = (_KITFILE, "model", "datasets", "code", "docs", "prompts", "mcpServers")
_SHOWN = 20


@dataclass(frozen=True)
class Filter:
    """One filter; a layer passes if its type is listed and, where names are given, its name or path is.

    :param types: of ``kitfile model datasets code docs prompts mcpServers``; ``model`` covers its parts.
    :param names: names, or paths exactly as the Kitfile writes them; empty passes all.
    """

    types: tuple[str, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read one filter.

        :raises InvalidInput: it does not follow the grammar.
        """
        types, colon, names = text.partition(":")
        kinds = tuple(types.split(","))
        unknown = [kind for kind in kinds if kind not in _TYPES]
        if unknown or ":" in names:
            reason = f"unknown type {unknown[0]!r}" if unknown else "more than one ':'"
            raise InvalidInput(
                f"The filter {text!r} cannot be used: {reason}.",
                hint=f"Write type[,type][:name-or-path[,…]] with the types {', '.join(_TYPES)}.",
            )
        return cls(kinds, tuple(names.split(",")) if colon else ())

    def passes(self, kind: LayerKind, path: str, name: str) -> bool:
        """Whether an entry of the Kitfile is to be unpacked."""
        if _section(kind) not in self.types:
            return False
        if not self.names or path in self.names:
            return True
        has_name = kind not in (LayerKind.CODE, LayerKind.DOCS)
        return has_name and name in self.names


@dataclass(frozen=True)
class Filters:
    """Several filters; what passes one of them passes. ``None`` instead of a list passes everything."""

    filters: tuple[Filter, ...] | None = None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Filters:
        """Read filters; an empty list passes everything.

        :raises InvalidInput: one of them does not follow the grammar.
        """
        return cls(tuple(Filter.parse(text) for text in texts) or None)

    def passes(self, layer: Layer) -> bool:
        """Whether ``layer`` is to be unpacked."""
        return self.passes_entry(layer.kind, layer.path, layer.name)

    def passes_entry(self, kind: LayerKind, path: str, name: str) -> bool:
        """Whether what an entry of the Kitfile stands for is to be unpacked."""
        return self.filters is None or any(one.passes(kind, path, name) for one in self.filters)

    @property
    def kitfile(self) -> bool:
        """Whether the Kitfile is to be written."""
        return self.filters is None or any(_KITFILE in one.types for one in self.filters)

    def selects(self, modelkit: ModelKit, *, include_remote: bool = False) -> bool:
        """Whether anything of a ModelKit, or of the one that it is based on, passes."""
        entries = [(layer.kind, layer.path, layer.name) for layer in modelkit.layers]
        if include_remote:
            entries = _entries(modelkit)
        based = modelkit.kitfile.base_reference is not None and self.of_parent().filters != ()
        return self.kitfile or based or any(self.passes_entry(*entry) for entry in entries)

    def check_names(self, modelkit: ModelKit, parents: Sequence[ModelKit], where: str) -> None:
        """Refuse a name or path that nothing has: it is a typo, and must not pass for something unpacked.

        :param parents: what the ModelKit is based on, of which only the model counts.
        :param where: the ModelKit is, for the message.
        :raises NotFound: with a hint that lists what there is.
        """
        entries = _entries(modelkit)
        entries += [each for parent in parents for each in _entries(parent) if _section(each[0]) == "model"]
        for one in self.filters or ():
            sections = [each for each in one.types if each != _KITFILE]
            for name in one.names if sections else ():
                if any(Filter(one.types, (name,)).passes(*entry) for entry in entries):
                    continue
                # A path has to be written as it is there, as for kit; that is no typo, and passes with a warning.
                if not any(clean(path) == clean(name) for _, path, _ in entries):
                    raise NotFound(
                        f"The ModelKit in {where} has no {' or '.join(sections)} of the name or path {name!r}.",
                        hint=f"It has {_listed(entries)}.",
                    )

    def of_parent(self) -> Filters:
        """What to take of a ModelKit that this one is based on: its model only, and of that what passes here."""
        if self.filters is None:
            return Filters((Filter(("model",)),))
        return Filters(tuple(Filter(("model",), one.names) for one in self.filters if "model" in one.types))


def content_of(modelkit: ModelKit) -> str:
    """What a filter can choose of a ModelKit, for messages."""
    return _listed(_entries(modelkit))


_Entry = tuple[LayerKind, str, str]  # kind, path, name


def _entries(modelkit: ModelKit) -> list[_Entry]:
    """What a filter can name: layers, and datasets that are elsewhere."""
    remote = [
        (LayerKind.DATASET, dataset.path, dataset.name) for dataset in modelkit.kitfile.datasets if dataset.remote_path
    ]
    return [(layer.kind, layer.path, layer.name) for layer in modelkit.layers] + remote


def _listed(entries: Sequence[_Entry]) -> str:
    listed = [f"{_section(kind)} {name or path}" for kind, path, name in entries]
    return ", ".join([*listed[:_SHOWN], *(["…"] if len(listed) > _SHOWN else [])]) or "no layers"


def _section(kind: LayerKind) -> str:
    """The type of filter that a layer falls under; the parts of a model are the model's."""
    return str((LayerKind.MODEL if kind is LayerKind.MODEL_PART else kind).value)
