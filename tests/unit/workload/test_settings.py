from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.workload.finetune.config import FineTuneConfig
from airflow_provider_kitops.workload.generate.config import GenerateConfig
from airflow_provider_kitops.workload.settings import dump_settings, load_settings


def configured(directory: Path, text: str, name: str = "config.yaml") -> Path:
    (directory / name).write_text(text)
    return directory


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    configured(tmp_path, "seed: 3\nbatch_size: 4\n")
    config = load_settings(FineTuneConfig, ["--seed", "7"], tmp_path)
    assert (config.seed, config.batch_size, config.epochs) == (7, 4, 1.0)


def test_json_is_read_where_there_is_no_yaml(tmp_path: Path) -> None:
    configured(tmp_path, '{"seed": 3}', "config.json")
    assert load_settings(FineTuneConfig, [], tmp_path).seed == 3


def test_another_file_can_be_named(tmp_path: Path) -> None:
    configured(tmp_path, "seed: 3")
    other = tmp_path / "other.yaml"
    other.write_text("seed: 4")
    assert load_settings(FineTuneConfig, [f"--config={other}"], tmp_path).seed == 4


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert load_settings(GenerateConfig, [], tmp_path / "missing") == GenerateConfig()


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    configured(tmp_path, "learning_rate: 1e-3")  # YAML 1.1 takes this for a text
    assert load_settings(FineTuneConfig, [], tmp_path).learning_rate == 1e-3


def test_lists_are_written_with_commas_on_the_command_line(tmp_path: Path) -> None:
    config = load_settings(FineTuneConfig, ["--lora-targets", "q_proj, v_proj", "--labels", "a,b"], tmp_path)
    assert (config.lora_targets, config.labels) == (("q_proj", "v_proj"), ("a", "b"))


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("lerning_rate: 1", [], "Unknown setting lerning_rate in .*config.yaml. Did you mean learning_rate?"),
        ("num_sample: 1", [], "Unknown setting num_sample"),
        ("", ["--learning-rat", "1"], "Unknown setting --learning-rat in the command line. Did you mean --learning-r"),
        ("", ["--seed"], "--seed needs a value"),
        ("", ["--learning-rate", "abc"], "^--learning-rate on the command line: 'abc' is no number\\.$"),
        ("seed: 3", ["--learning-rate=abc"], "^--learning-rate on the command line: 'abc' is no number\\.$"),
        ("", ["--seed", "1.5"], "^--seed on the command line: '1.5' is no whole number\\.$"),
        ("", ["--chat", "maybe"], "^--chat on the command line: 'maybe' is neither true nor false\\.$"),
        ("", ["--epochs", "0"], "^--epochs on the command line: '0': .*greater than 0\\.$"),
        ("batch_size: many", ["--task", "sorting"], "^--task on the command line: 'sorting': .*causal-lm"),
        ("seed: 1", ["--system", "Be brief."], "config.yaml and the command line: together: .*needs chat: true"),
        ("", ["seed"], "Unexpected argument 'seed'"),
        ("batch_size: many", [], "batch_size: .*integer.*'many'"),
        ("batch_size: 0", [], "batch_size: .*greater than or equal to 1"),
        ("task: sorting", [], "task: .*causal-lm"),
        ("[1, 2]", [], "holds a list"),
        ("a: [", [], "no valid YAML"),
        ("template: nothing", [], r"does not hold \{text\}"),
        ("labels: [a, a]", [], "each once"),
        ("max_length: 16\nmax_new_tokens: 16", [], "max_new_tokens must be less"),
        ("eval: e.jsonl\neval_fraction: 0.1", [], "exclude each other"),
        ("task: sequence-classification\ndata: messages", [], "text-label"),
        ("system: Be brief.", [], "needs chat: true"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, arguments: list[str], message: str) -> None:
    configured(tmp_path, text)
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        load_settings(FineTuneConfig, arguments, tmp_path)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Cannot read the config file .*no\.yaml"):
        load_settings(FineTuneConfig, ["--config", str(tmp_path / "no.yaml")], tmp_path)


def test_settings_are_written_with_their_defaults_and_read_back_the_same(tmp_path: Path) -> None:
    config = FineTuneConfig(labels=("ja", "nein"), template="Frage: {text}\n\nAntwort:", seed=5)
    dump_settings(config, tmp_path / "config.yaml")
    assert load_settings(FineTuneConfig, [], tmp_path) == config
    assert set(yaml.safe_load((tmp_path / "config.yaml").read_text())) == set(FineTuneConfig.model_fields)


def test_every_setting_is_described() -> None:
    for model in (FineTuneConfig, GenerateConfig):
        described = "".join(base.__doc__ or "" for base in model.__mro__)
        assert [name for name in model.model_fields if name not in described] == []


def test_settings_are_plain_json() -> None:
    assert json.loads(FineTuneConfig().model_dump_json())["lora_targets"] == ["all-linear"]
