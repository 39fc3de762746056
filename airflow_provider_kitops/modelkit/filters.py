"""Which layers to unpack, in kit's grammar: ``type[,type…][:name-or-path[,…]]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_kitops.modelkit.kitfile import LayerKind
from airflow_provider_kitops.modelkit.manifest import Layer
from airflow_provider_kitops.oci.errors import InvalidInput

_KITFILE = "kitfile"
_TYPES = (_KITFILE, "model", "datasets", "code", "docs", "prompts", "mcpServers")


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
        section = LayerKind.MODEL if kind is LayerKind.MODEL_PART else kind
        if section.value not in self.types:
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

    def of_parent(self) -> Filters:
        """What to take of a ModelKit that this one is based on: its model only, and of that what passes here."""
        if self.filters is None:
            return Filters((Filter(("model",)),))
        return Filters(tuple(Filter(("model",), one.names) for one in self.filters if "model" in one.types))
