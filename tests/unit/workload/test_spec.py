from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kitops.oci.errors import InvalidInput, InvalidReference
from airflow_provider_kitops.workload.programs import finetune_spec, generate_spec
from airflow_provider_kitops.workload.spec import WorkloadSpec

DIGEST = "sha256:" + "a" * 64
BASE, DATA = f"demo/base@{DIGEST}", f"demo/data@sha256:{'b' * 64}"


def spec(**fields: Any) -> WorkloadSpec:
    return WorkloadSpec.of(
        **{
            "inputs": {"base": BASE},
            "command": ["train"],
            "output": {"reference": "demo/model:challenger", "kitfile": {"manifestVersion": "1.0.0"}},
            **fields,
        }
    )


def test_digest_does_not_depend_on_the_order_of_settings() -> None:
    assert spec(config={"a": 1, "b": 2}).digest == spec(config={"b": 2, "a": 1}).digest


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"a": 2}},
        {"command": ["train", "-v"]},
        {"inputs": {"base": DATA}},
        {"env": {"A": "1"}},
        {"image": f"registry.example/train@{DIGEST}"},
    ],
)
def test_digest_changes_with_everything_that_matters(change: dict[str, Any]) -> None:
    assert spec(**change).digest != spec(config={"a": 1}).digest


def test_an_input_without_a_digest_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'demo/base:latest', which has no digest"):
        spec(inputs={"base": "demo/base:latest"})


@pytest.mark.parametrize("name", ["../base", "Base", "", "a/b", "-a"])
def test_an_input_name_is_a_plain_directory_name(name: str) -> None:
    with pytest.raises(InvalidInput, match="input name"):
        spec(inputs={name: BASE})


def test_an_output_with_a_digest_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"output.reference: .*digest is not known"):
        spec(output={"reference": BASE, "kitfile": {}})


def test_a_malformed_output_is_refused() -> None:
    with pytest.raises(InvalidReference, match="Malformed repository"):
        spec(output={"reference": "Demo Model", "kitfile": {}})


def test_an_unknown_field_and_an_empty_command_are_both_named() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)command.*gpus|gpus.*command"):
        spec(command=[], gpus=2)


def test_settings_are_plain_values() -> None:
    with pytest.raises(InvalidInput, match="plain JSON"):
        spec(config={"rate": float("nan")})


def test_the_runners_own_variables_cannot_be_set() -> None:
    with pytest.raises(InvalidInput, match="KITOPS_OUTPUT are set by the runner"):
        spec(env={"KITOPS_OUTPUT": "/tmp"})


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_variable_that_cannot_be_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"env: the variable .* cannot be set"):
        spec(env={name: "hunter2"})


def test_nothing_holds_a_nul_character() -> None:
    with pytest.raises(InvalidInput, match=r"command: .* cannot hold a NUL"):
        spec(command=["train", "a\0b"])
    with pytest.raises(InvalidInput, match="the variable 'A' cannot be set") as caught:
        spec(env={"A": "hunter2\0"})
    assert "hunter2" not in str(caught.value)


def test_settings_nested_too_deeply_are_refused() -> None:
    config: dict[str, Any] = {}
    for _ in range(100_000):
        config = {"a": config}
    with pytest.raises(InvalidInput, match=r"nested too deeply|recursion"):
        spec(config=config)


def test_a_malformed_tag_is_refused_before_the_work() -> None:
    with pytest.raises(InvalidReference, match="Malformed tag 'not a tag'"):
        spec(output={"reference": "demo/model", "kitfile": {}, "tags": ["not a tag"]})


@pytest.mark.parametrize("value", [2739, 27.39, True])
def test_a_variable_that_is_no_text_is_named_with_the_cure_and_not_shown(value: object) -> None:
    with pytest.raises(
        InvalidInput, match=r"env: the value of THREADS is of type .*, not text: put it in quotes"
    ) as said:
        spec(env={"THREADS": value})
    assert str(value) not in str(said.value)


def test_environment_is_not_shown() -> None:
    assert "hunter2" not in repr(spec(env={"A": "hunter2"}))


def test_tags_are_the_references_own_first_and_each_once() -> None:
    output = {"reference": "demo/model:challenger", "kitfile": {}, "tags": ["v1", "challenger"]}
    assert spec(output=output).output.all_tags == ("challenger", "v1")


def test_the_kitfile_gets_the_references_of_the_inputs() -> None:
    kitfile = {"model": {"path": "{inputs.base}", "parts": [{"path": "adapter"}]}}
    assert spec(output={"reference": "demo/model", "kitfile": kitfile}).kitfile() == {
        "model": {"path": BASE, "parts": [{"path": "adapter"}]}
    }


def test_a_kitfile_that_names_an_unknown_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\{inputs.bsae\}.*The inputs are: base"):
        spec(output={"reference": "demo/model", "kitfile": {"model": {"path": "{inputs.bsae}"}}}).kitfile()


def test_a_fine_tuned_model_names_its_base_by_digest_and_packs_only_the_adapter() -> None:
    tuned = finetune_spec(base=BASE, dataset=DATA, output="demo/model:challenger", config={"seed": 1}, name="news")
    model = tuned.kitfile()["model"]
    assert model["path"] == BASE
    assert model["parts"] == [{"name": "adapter", "path": "adapter", "type": "lora-adapter"}]
    assert tuned.kitfile()["package"] == {"name": "news"}


def test_predictions_are_a_dataset() -> None:
    made = generate_spec(model=BASE, items=DATA, output="demo/predictions", config={})
    assert [each["path"] for each in made.kitfile()["datasets"]] == ["predictions.jsonl"]
    assert "model" not in made.kitfile()
