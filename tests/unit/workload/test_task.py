from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.task import Task, TaskSettings, split_messages

LABELS = ("hockey", "space")


def decide(tokenizer: Any, labels: tuple[str, ...] | None = LABELS, **fields: Any) -> Task:
    return Task.decide(TaskSettings(**fields), labels, tokenizer)


def test_the_prompt_is_the_template_with_the_text(tokenizer: Any) -> None:
    task = decide(tokenizer, template="Which of {labels}?\n{text}\nTopic:")
    assert tokenizer.decode(task.prompt_ids(tokenizer, "a rocket")) == "Which of hockey, space?\na rocket\nTopic:"


def test_a_text_that_looks_like_a_placeholder_is_left_as_it_is(tokenizer: Any) -> None:
    task = decide(tokenizer, template="{text} {labels}")
    assert tokenizer.decode(task.prompt_ids(tokenizer, "{labels} {text}")) == "{labels} {text} hockey, space"


def test_the_answer_is_the_label_apart_from_the_prompt_and_ends(tokenizer: Any) -> None:
    ids = decide(tokenizer, template="{text}\nTopic:").answer_ids(tokenizer, "space")
    assert tokenizer.decode(ids) == " space<|end|>"


def test_a_prompt_that_ends_in_white_space_needs_no_more(tokenizer: Any) -> None:
    ids = decide(tokenizer, template="{text}\nTopic:\n").answer_ids(tokenizer, "space")
    assert tokenizer.decode(ids) == "space<|end|>"


def test_room_is_kept_for_the_longest_label(tokenizer: Any) -> None:
    task = decide(tokenizer, labels=("a", "a rather long name of a label"))
    assert task.max_new_tokens == len(task.answer_ids(tokenizer, "a rather long name of a label"))
    assert task.answer_ids(tokenizer, "a rather long name of a label")[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("end", ["end", "start"])
def test_a_long_text_is_cut_and_the_template_around_it_is_not(tokenizer: Any, end: Any) -> None:
    task = decide(tokenizer, template="Text: {text}\nTopic:", max_length=40, truncate=end)
    words = " ".join(f"word{number}" for number in range(100))
    prompt = tokenizer.decode(task.prompt_ids(tokenizer, words))
    assert prompt.startswith("Text: ")
    assert prompt.endswith("\nTopic:")
    assert ("word0 " in prompt) == (end == "end")
    assert prompt.endswith("word99\nTopic:") == (end == "start")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200), chat=st.booleans(), end=st.sampled_from(["end", "start"]))
def test_prompt_and_answer_never_exceed_the_length(tokenizer: Any, text: str, chat: bool, end: Any) -> None:
    task = decide(tokenizer, template="Q: {text}\nTopic:", chat=chat, max_length=40, truncate=end)
    ids = task.prompt_ids(tokenizer, text) + task.answer_ids(tokenizer, "hockey")
    assert len(ids) <= 40


def test_chat_puts_the_prompt_into_the_bases_template(tokenizer: Any) -> None:
    task = decide(tokenizer, chat=True, system="Be brief.")
    assert (
        tokenizer.decode(task.prompt_ids(tokenizer, "a rocket"))
        == "<|system|>Be brief.<|end|><|user|>a rocket<|end|><|assistant|>"
    )
    assert tokenizer.decode(task.answer_ids(tokenizer, "space")) == "space<|end|>"


def test_messages_are_put_into_the_bases_template(tokenizer: Any) -> None:
    task = decide(tokenizer, labels=None)
    question, answer = split_messages(
        [{"role": "user", "content": "a rocket"}, {"role": "assistant", "content": "space"}], "Row 1"
    )
    assert tokenizer.decode(task.prompt_ids(tokenizer, question)) == "<|user|>a rocket<|end|><|assistant|>"
    assert answer == "space"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        [{"role": "assistant", "content": "x"}],
        [{"role": "assistant", "content": "x"}] * 2 + [{"role": "user"}],
    ],
)
def test_a_conversation_ends_with_the_assistant(messages: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Row 4 of a\.jsonl is no conversation"):
        split_messages(messages, "Row 4 of a.jsonl")


def test_a_template_that_leaves_no_room_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidInput, match="The template alone takes"):
        decide(tokenizer, template="word " * 60 + "{text}", max_length=32)


def test_a_classifier_needs_labels(tokenizer: Any) -> None:
    with pytest.raises(InvalidInput, match="needs labels"):
        decide(tokenizer, labels=None, task="sequence-classification")


def test_a_task_is_read_as_it_was_saved(tokenizer: Any, tmp_path: Path) -> None:
    task = decide(tokenizer, template="Frage: {text} → ", chat=True)
    task.save(tmp_path)
    assert Task.load(tmp_path) == task


def test_a_task_of_a_later_version_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    assert Task.load(tmp_path) is None
    (tmp_path / "task.json").write_text('{"version": 2}')
    with pytest.raises(InvalidInput, match=r"Cannot use .*task\.json"):
        Task.load(tmp_path)
