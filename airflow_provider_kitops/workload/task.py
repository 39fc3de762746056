"""The task that a model is trained for: how a prompt is made of a row, and which answers there are.

``finetune`` saves the task next to the adapter and ``generate`` reads it there, so that a model is never asked in
another way than it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airflow_provider_kitops._validation import problems
from airflow_provider_kitops.oci.errors import InvalidInput

TaskKind = Literal["causal-lm", "sequence-classification"]

#: File name of the saved task, beside ``adapter_config.json``.
TASK_FILE = "task.json"

#: What a row asks: a text, or the messages of a conversation (each with ``role`` and ``content``).
Question = str | Sequence[Mapping[str, Any]]


class TaskSettings(BaseModel):
    """The part of the settings that says what is asked and answered.

    :param task: ``causal-lm`` writes the answer, ``sequence-classification`` chooses among labels with a head of its
        own.
    :param template: the prompt; ``{text}`` stands for the row's text, ``{labels}`` for all labels with commas.
    :param chat: put the prompt into the base's chat template as a user's message. Messages always are.
    :param system: system message before it.
    :param labels: the labels, in the order of the classes; by default those of the training data, sorted.
    :param answer_prefix: what stands between prompt and answer; by default a space before a label where prompt and
        label would touch, else nothing.
    :param max_length: tokens of prompt and answer together. A longer text is cut, never the template around it.
    :param max_new_tokens: tokens kept free for the answer; by default what the longest label needs, or a quarter of
        ``max_length`` where there are no labels.
    :param truncate: which end of a text that is too long is cut off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TaskKind = "causal-lm"
    template: str = "{text}"
    chat: bool = False
    system: str = ""
    labels: tuple[str, ...] | None = None
    answer_prefix: str | None = None
    max_length: int = Field(default=512, ge=8)
    max_new_tokens: int | None = Field(default=None, ge=1)
    truncate: Literal["end", "start"] = "end"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "{text}" not in self.template:
            raise ValueError("the template does not hold {text}")
        if self.max_new_tokens is not None and self.max_new_tokens >= self.max_length:
            raise ValueError("max_new_tokens must be less than max_length")
        if self.system and not self.chat:
            raise ValueError("a system message needs chat: true")
        if self.labels is not None and (len(set(self.labels)) != len(self.labels) or len(self.labels) < 2):
            raise ValueError("labels must be two or more, and each once")
        return self


class Task(BaseModel):
    """A task with everything decided; what is saved with a model.

    Fields are those of ``TaskSettings``; ``labels`` is None where any text may be the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    task: TaskKind
    template: str
    chat: bool
    system: str
    labels: tuple[str, ...] | None
    answer_prefix: str
    max_length: int
    max_new_tokens: int
    truncate: Literal["end", "start"]

    @classmethod
    def decide(cls, settings: TaskSettings, labels: Sequence[str] | None, tokenizer: Any) -> Task:
        """Fill in what the settings leave open.

        :param labels: labels found in the data, None where answers are free text.
        :raises InvalidInput: a classifier without labels; a template that leaves no room for text.
        """
        labels = settings.labels or (tuple(labels) if labels is not None else None)
        if settings.task == "sequence-classification" and not labels:
            raise InvalidInput("A sequence classifier needs labels.", hint="Name them with labels: [...].")
        prefix = settings.answer_prefix
        if prefix is None:
            prefix = " " if labels and not settings.chat and not settings.template[-1:].isspace() else ""
        if settings.task == "sequence-classification":
            new_tokens = 0
        elif settings.max_new_tokens is not None:
            new_tokens = settings.max_new_tokens
        elif labels:
            new_tokens = 1 + max(len(_encode(tokenizer, prefix + label)) for label in labels)
        else:
            new_tokens = max(1, settings.max_length // 4)
        task = cls(
            task=settings.task,
            template=settings.template,
            chat=settings.chat,
            system=settings.system,
            labels=labels,
            answer_prefix=prefix,
            max_length=settings.max_length,
            max_new_tokens=new_tokens,
            truncate=settings.truncate,
        )
        frame = len(task._prompt(tokenizer, ""))
        if frame >= task.room:
            raise InvalidInput(
                f"The template alone takes {frame} of the {task.room} tokens that max_length leaves for the prompt.",
                hint="Raise max_length or shorten the template.",
            )
        return task

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        return self.max_length - self.max_new_tokens

    def prompt_ids(self, tokenizer: Any, question: Question) -> list[int]:
        """The tokens of the prompt for ``question``, no more than ``room``."""
        if not isinstance(question, str):
            # A conversation has no part that is only text; its newest messages matter most.
            return _chat(tokenizer, [dict(message) for message in question])[-self.room :]
        ids = self._prompt(tokenizer, question)
        # Cutting can join or part tokens at the cut, so it is repeated until the prompt fits.
        text, budget = question, self.room - len(self._prompt(tokenizer, ""))
        while len(ids) > self.room and text:
            text = _cut(tokenizer, text, budget, self.truncate)
            ids = self._prompt(tokenizer, text)
            budget -= 1
        return ids

    def answer_ids(self, tokenizer: Any, answer: str) -> list[int]:
        """The tokens of the answer with the end-of-text token, no more than ``max_new_tokens``."""
        return [*_encode(tokenizer, self.answer_prefix + answer), tokenizer.eos_token_id][: self.max_new_tokens]

    def save(self, directory: Path) -> None:
        """Write the task into the directory of an adapter."""
        (directory / TASK_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Task | None:
        """The task saved in ``directory``; None if there is none.

        :raises InvalidInput: it was written by a newer version, or is no task.
        """
        path = directory / TASK_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InvalidInput(f"Cannot use {path}: {problems(error, cls, 'task')}.") from None

    def _prompt(self, tokenizer: Any, text: str) -> list[int]:
        # One pass over the template, so that a text which holds "{labels}" is left as it is.
        before, _, after = self.template.partition("{text}")
        listed = ", ".join(self.labels or ())
        prompt = before.replace("{labels}", listed) + text + after.replace("{labels}", listed)
        if not self.chat:
            ids: list[int] = tokenizer(prompt)["input_ids"]
            return ids
        system = [{"role": "system", "content": self.system}] if self.system else []
        return _chat(tokenizer, [*system, {"role": "user", "content": prompt}])


def split_messages(messages: Any, where: str) -> tuple[list[dict[str, Any]], str]:
    """A conversation as question and answer: the last message is the answer, all before it are the question.

    :param where: which row this is, for the message.
    :raises InvalidInput: no conversation that ends with the assistant's words.
    """
    if (
        not isinstance(messages, list)
        or len(messages) < 2
        or not all(isinstance(each, dict) and isinstance(each.get("content"), str) for each in messages)
        or messages[-1].get("role") != "assistant"
    ):
        raise InvalidInput(
            f"{where} is no conversation.",
            hint="It is a list of messages with role and content, of which the last is the assistant's.",
        )
    return messages[:-1], messages[-1]["content"]


def _chat(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    if not tokenizer.chat_template:
        raise InvalidInput("The base model has no chat template.", hint="Use chat: false and a template.")
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    return ids


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _cut(tokenizer: Any, text: str, tokens: int, end: Literal["end", "start"]) -> str:
    if tokens <= 0:
        return ""
    ids = _encode(tokenizer, text)
    if len(ids) <= tokens:
        # The frame around the text takes more tokens with it than without: go on by characters.
        return text[:-1] if end == "end" else text[1:]
    if tokenizer.is_fast:
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text[: spans[tokens - 1][1]] if end == "end" else text[spans[-tokens][0] :]
    kept: str = tokenizer.decode(ids[:tokens] if end == "end" else ids[-tokens:], skip_special_tokens=True)
    return kept
