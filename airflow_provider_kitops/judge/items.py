"""What is judged: items, labelled pairs and predictions, read from JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_kitops.oci.canonical import json_digest
from airflow_provider_kitops.oci.errors import InvalidInput


@dataclass(frozen=True)
class Item:
    """One task that both contestants answered.

    :param id: unique in the set.
    :param prompt: what the contestants were asked.
    :param reference: a correct answer, if one is known.
    :param cluster: items that belong together (one document, one author) share it; they are no independent evidence.
    """

    id: str
    prompt: str
    reference: str | None = None
    cluster: str | None = None


@dataclass(frozen=True)
class LabelledPair:
    """Two answers of which one is known to be better: what a judge is qualified on.

    :param id: unique in the set.
    :param prompt: the task.
    :param better: the answer that a good judge prefers.
    :param worse: the other one.
    :param reference: a correct answer, if the items have one too.
    """

    id: str
    prompt: str
    better: str
    worse: str
    reference: str | None = None


@dataclass(frozen=True)
class Contestant:
    """One side of the comparison.

    :param digest: of the ModelKit that answered.
    :param predictions: answer by item id.
    :param metrics: further figures by name and item id, in [0, 1], more is better; the gate may guard them.
    """

    digest: str
    predictions: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def load_items(path: Path) -> list[Item]:
    """Items from JSON Lines with ``id``, ``prompt`` and, where known, ``reference`` and ``cluster``.

    :raises InvalidInput: unreadable file, malformed line, missing, unknown or repeated field or id; no items.
    """
    return [
        Item(row.text("id"), row.text("prompt"), row.optional("reference"), row.optional("cluster"))
        for row in _rows(path, {"id", "prompt"}, {"reference", "cluster"})
    ]


def load_pairs(path: Path) -> list[LabelledPair]:
    """Labelled pairs from JSON Lines with ``id``, ``prompt``, ``better``, ``worse`` and perhaps ``reference``.

    :raises InvalidInput: as for :func:`load_items`, and a pair whose two answers are the same.
    """
    pairs = []
    for row in _rows(path, {"id", "prompt", "better", "worse"}, {"reference"}):
        pair = LabelledPair(
            row.text("id"), row.text("prompt"), row.text("better"), row.text("worse"), row.optional("reference")
        )
        if pair.better.strip() == pair.worse.strip():
            raise InvalidInput(f"{row.where}: the better and the worse answer of pair {pair.id!r} are the same.")
        pairs.append(pair)
    return pairs


def load_predictions(path: Path) -> dict[str, str]:
    """Answers by item id from JSON Lines with ``id`` and ``prediction``; other fields are left alone.

    :raises InvalidInput: as for :func:`load_items`; an empty answer is an answer.
    """
    return {row.text("id"): row.text("prediction", empty=True) for row in _rows(path, {"id", "prediction"}, None)}


def check_predictions(items: Sequence[Item], predictions: Mapping[str, str], who: str) -> None:
    """See that there is exactly one answer to each item.

    :param who: the contestant's name in the error.
    :raises InvalidInput: items without an answer or answers without an item, with the first few ids.
    """
    known = {item.id for item in items}
    missing = [item.id for item in items if item.id not in predictions]
    extra = [key for key in predictions if key not in known]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(items)} items have no prediction ({_some(missing)})")
    if extra:
        problems.append(f"{len(extra)} predictions belong to no item ({_some(extra)})")
    if problems:
        raise InvalidInput(
            f"The predictions of the {who} do not fit the items: {'; '.join(problems)}.",
            hint="Let both contestants answer the item set that is judged.",
        )


def items_digest(items: Iterable[Item]) -> str:
    """Names the set whatever its order."""
    return json_digest(sorted([item.id, item.prompt, item.reference or "", item.cluster or ""] for item in items))


def pairs_digest(pairs: Iterable[LabelledPair]) -> str:
    """Names the set whatever its order."""
    return json_digest(sorted([pair.id, pair.prompt, pair.better, pair.worse, pair.reference or ""] for pair in pairs))


@dataclass(frozen=True)
class _Row:
    where: str
    values: Mapping[str, object]

    def text(self, key: str, *, empty: bool = False) -> str:
        value = self.values[key]
        if not isinstance(value, str) or not (empty or value.strip()):
            raise InvalidInput(f"{self.where}: field {key!r} must be {'a' if empty else 'a non-empty'} text.")
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can say it, and nobody can be sent it
            raise InvalidInput(f"{self.where}: field {key!r} holds half a surrogate pair, which is no text.") from None
        return value

    def optional(self, key: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key)


def _rows(path: Path, required: set[str], optional: set[str] | None) -> Iterator[_Row]:
    """The lines of ``path``, checked; ``optional=None`` allows any other field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Cannot read {path}: it is not UTF-8.") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where}: not JSON ({error}).", hint="One JSON object per line is expected.") from error
        if not isinstance(value, dict):
            raise InvalidInput(f"{where}: a JSON object is expected.")
        missing = required - value.keys()
        unknown = set() if optional is None else value.keys() - required - optional
        if missing or unknown:
            said = [f"lacks {_some(sorted(missing))}"] if missing else []
            said += [f"has the unknown {_some(sorted(unknown))}"] if unknown else []
            raise InvalidInput(f"{where}: {' and '.join(said)}.")
        row = _Row(where, value)
        identity = row.text("id")
        if identity in seen:
            raise InvalidInput(f"{where}: the id {identity!r} was used in line {seen[identity]} already.")
        seen[identity] = number
        yield row
    if not seen:
        raise InvalidInput(f"{path} holds no lines.")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return shown + (", …" if len(names) > 5 else "")
