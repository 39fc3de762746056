"""What is judged: items, labelled pairs and predictions, read from JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    :param predictions_modelkit: digest of the ModelKit that the answers are from, if they are from one.
    """

    digest: str
    predictions: Mapping[str, str]
    predictions_modelkit: str | None = None


def load_items(path: Path) -> list[Item]:
    """Items from JSON Lines with ``id``, ``prompt`` and, where known, ``reference`` and ``cluster``.

    Where there is no ``prompt``, ``text`` is taken for it, or the last message of the user in ``messages``: what the
    program ``generate`` asks. A number is its digits. Other fields are left alone.

    :raises InvalidInput: unreadable file, malformed line, missing field, repeated id; no items.
    """
    return [
        Item(row.text("id"), row.prompt(), row.optional("reference"), row.optional("cluster"))
        for row in _rows(path, {"id"})
    ]


def load_pairs(path: Path) -> list[LabelledPair]:
    """Labelled pairs from JSON Lines with ``id``, ``prompt``, ``better``, ``worse`` and perhaps ``reference``.

    The prompt is found as in :func:`load_items`.

    :raises InvalidInput: as for :func:`load_items`, and a pair whose two answers are the same.
    """
    pairs = []
    for row in _rows(path, {"id", "better", "worse"}):
        pair = LabelledPair(
            row.text("id"), row.prompt(), row.text("better"), row.text("worse"), row.optional("reference")
        )
        if pair.better.strip() == pair.worse.strip():
            raise InvalidInput(f"{row.where}: the better and the worse answer of pair {pair.id!r} are the same.")
        pairs.append(pair)
    return pairs


def load_predictions(path: Path) -> dict[str, str]:
    """Answers by item id from JSON Lines with ``id`` and ``prediction``; other fields are left alone.

    :raises InvalidInput: as for :func:`load_items`; an empty answer is an answer.
    """
    return {row.text("id"): row.text("prediction", empty=True) for row in _rows(path, {"id", "prediction"})}


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
        return self._checked(self.values[key], key, empty=empty)

    def optional(self, key: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key)

    def prompt(self) -> str:
        for key in ("prompt", "text"):
            if self.values.get(key) is not None:
                return self.text(key)
        messages = self.values.get("messages")
        if messages is None:
            raise self.lacks("prompt", "Ask the question in prompt, in text, or in messages.")
        asked = [
            message.get("content")
            for message in (messages if isinstance(messages, list) else [])
            if isinstance(message, dict) and message.get("role") == "user"
        ]
        if not asked:
            raise InvalidInput(
                f"{self.where}: field 'messages' holds no message of the user.",
                hint='It is a list of {"role": …, "content": …}, of which the last by the role "user" is the prompt.',
            )
        return self._checked(asked[-1], "messages")

    def lacks(self, what: str, hint: str) -> InvalidInput:
        there = _some(sorted(self.values))
        return InvalidInput(f"{self.where}: there is no {what}; its columns are {there or 'none'}.", hint=hint)

    def _checked(self, value: object, key: str, *, empty: bool = False) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not (empty or value.strip()):
            raise InvalidInput(
                f"{self.where}: field {key!r} must be {'a' if empty else 'a non-empty'} text.",
                hint="Remove the line, or say there what the field should hold.",
            )
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can say it, and nobody can be sent it
            raise InvalidInput(f"{self.where}: field {key!r} holds half a surrogate pair, which is no text.") from None
        return value


def _rows(path: Path, required: set[str]) -> Iterator[_Row]:
    """The lines of ``path``, checked."""
    if path.suffix in (".csv", ".parquet"):
        raise InvalidInput(
            f"Cannot read {path}: the judge reads JSON Lines only.",
            hint="Write each row as one JSON object on a line of its own, with the columns as its fields.",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
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
        row = _Row(where, value)
        for name in sorted(required - value.keys()):
            raise row.lacks(name, f"Each line needs {', '.join(sorted(required))}; rename a column that holds it.")
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
