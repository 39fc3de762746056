"""Kitfiles suggested for the folders that people have."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identify.vendor.licenses import LICENSES

from airflow_provider_kitops.modelkit.init import suggest_kitfile
from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Docs, Kitfile, ModelPart, Package, parse_kitfile
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.oci.errors import InvalidInput, UnsafePath
from tests.unit.modelkit.conftest import Write

MIT = dict(LICENSES)["MIT"].replace("[year]", "2026").replace("[fullname]", "Ada")


def suggested(write: Write, files: Mapping[str, str | bytes]) -> Kitfile:
    context = write(files)
    kitfile = suggest_kitfile(context)
    assert parse_kitfile(kitfile.to_yaml()) == kitfile
    packed = {entry.name for entry in _entries(context, kitfile)}
    kept = {name for name in files if name not in ("Kitfile", ".kitignore")}
    assert packed == kept, "every file is in some layer"
    return kitfile


def _entries(context: Path, kitfile: Kitfile):  # type: ignore[no-untyped-def]
    from airflow_provider_kitops.modelkit.ignore import read_rules
    from airflow_provider_kitops.modelkit.layers import plan_layers

    for plan in plan_layers(context, kitfile, read_rules(context)):
        yield from (entry for entry in plan.entries if not entry.directory)


def test_a_hugging_face_folder_is_a_model_with_its_parts(write: Write) -> None:
    kitfile = suggested(
        write,
        {
            "model-00001-of-00002.safetensors": b"a" * 10,
            "model-00002-of-00002.safetensors": b"b" * 20,
            "model.safetensors.index.json": "{}",
            "config.json": json.dumps({"_name_or_path": "org/Small-LM", "transformers_version": "5"}),
            "tokenizer.json": "{}",
            "training_args.bin": b"x",
            "README.md": "---\nlicense: apache-2.0\n---\n# Small\n",
            "LICENSE": "no text that anybody knows",
        },
    )
    model = kitfile.model
    assert model is not None
    assert (model.name, model.path) == ("Small-LM", "model-00001-of-00002.safetensors")
    assert (model.framework, model.format, model.license) == ("transformers", "safetensors", "apache-2.0")
    assert {part.path: part.type for part in model.parts} == {
        "model-00002-of-00002.safetensors": "",
        "model.safetensors.index.json": "config",
        "config.json": "config",
        "tokenizer.json": "tokenizer",
        "training_args.bin": "training-state",
    }
    assert kitfile.docs == (Docs("LICENSE", "License file"), Docs("README.md", "Readme file"))


ADAPTER = {"adapter_model.safetensors": b"a", "adapter_config.json": '{"peft_type": "LORA"}'}


def test_an_adapter_alone_is_the_model(write: Write) -> None:
    model = suggested(write, ADAPTER).model
    assert model is not None
    assert (model.path, model.framework) == ("adapter_model.safetensors", "peft")
    assert model.parts == (ModelPart("adapter_config.json", "adapter_config.json", "", "lora-adapter"),)


def test_an_adapter_beside_a_model_is_a_part(write: Write) -> None:
    both = {f"lora/{name}": text for name, text in ADAPTER.items()} | {"base.gguf": b"GGUF"}
    model = suggested(write, both).model
    assert model is not None
    assert (model.name, model.path, model.framework) == ("base", "base.gguf", "llama.cpp")
    assert ModelPart("adapter_model.safetensors", "lora/adapter_model.safetensors", "", "lora-adapter") in model.parts


@pytest.mark.parametrize(
    ("files", "path", "framework"),
    [
        ({"m/saved_model.pb": "1", "m/variables/variables.index": "2", "m/assets/vocab.txt": "3"}, "m", "tensorflow"),
        ({"MLmodel": "1", "model.pkl": "2", "python_env.yaml": "3"}, ".", "mlflow"),
        ({"p/model_index.json": "{}", "p/unet/model.safetensors": "2", "p/vae/config.json": "3"}, "p", "diffusers"),
        ({"m.mlpackage/Manifest.json": "{}", "m.mlpackage/Data/w/weight.bin": "2"}, "m.mlpackage", "coreml"),
    ],
)
def test_a_folder_that_a_tool_reads_as_a_whole_is_one_layer(
    write: Write, files: Mapping[str, str], path: str, framework: str
) -> None:
    model = suggested(write, files).model
    assert model is not None
    assert (model.path, model.framework, model.parts) == (path, framework, ())


def test_data_code_and_docs_go_to_their_sections(write: Write) -> None:
    kitfile = suggested(
        write,
        {
            "data/train.jsonl": "1",
            "data/sub/valid.csv": "2",
            "extra.parquet": "3",
            "src/train.py": "4",
            "notebooks/try.ipynb": "5",
            "Makefile": "6",
            "requirements.txt": "7",
            "docs/guide.txt": "8",
            "LICENSE": MIT,
        },
    )
    assert kitfile.model is None
    assert kitfile.datasets == (Dataset("data", "data"), Dataset("extra", "extra.parquet"))
    assert kitfile.docs == (Docs("LICENSE", "License file"), Docs("docs", ""))
    assert [code.path for code in kitfile.code] == ["Makefile", "notebooks", "requirements.txt", "src"]
    assert kitfile.package == Package(license="MIT")


def test_much_code_becomes_one_layer(write: Write) -> None:
    kitfile = suggested(write, {f"{n}.py": "x" for n in range(6)} | {"d.csv": "1"})
    assert kitfile.code == (Code("."),)
    assert kitfile.datasets == (Dataset("d", "d.csv"),)


def test_what_is_ignored_is_left_out_and_leftovers_are_warned_about(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    context = write({"a.py": "1", "secret/key.csv": "2", ".kitignore": "secret\n", ".git/config": "3", "Kitfile": "x"})
    assert suggest_kitfile(context) == Kitfile(code=(Code("a.py"),))
    assert ".git" in caplog.text


def test_a_folder_of_links_or_nothing_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a directory"):
        suggest_kitfile(tmp_path / "nowhere")
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidInput, match=r"holds no file that can be packed\. Put there"):
        suggest_kitfile(tmp_path / "in")
    (tmp_path / "in/link").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="cp -L"):
        suggest_kitfile(tmp_path / "in")


def test_weights_whose_name_is_a_reference_are_refused(write: Write) -> None:
    with pytest.raises(InvalidInput, match=r"llama3:8b\.gguf would be .* reads this name as a reference") as refused:
        suggest_kitfile(write({"llama3:8b.gguf": b"GGUF", "a.py": "1"}))
    assert "Rename it" in str(refused.value)
    suggested_again = suggest_kitfile(write({"llama3:8b.gguf": b"GGUF", ".kitignore": "*.gguf\n"}))
    assert suggested_again.model is None


@pytest.mark.parametrize("name", [b"w\xff.gguf", b"v1..2.bin", b"sub/.modelkit-unpack-1", b"a\\..\\b.bin"])
def test_names_that_no_modelkit_can_carry_are_refused(write: Write, name: bytes) -> None:
    context = write({"a.py": "1"})
    with pytest.raises(UnsafePath):
        suggest_kitfile(write({"a.py": "1", os.fsdecode(name): "2"}))
    (context / ".kitignore").write_text("w*\nv1*\nsub\na?..*\na*b.bin\n")
    assert suggest_kitfile(context).code


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_model_card_of_windows_has_its_licence_read(write: Write, start: str) -> None:
    card = f"{start}---\r\nlicense: apache-2.0\r\n---\r\n# Small\r\n"
    model = suggested(write, {"w.gguf": b"GGUF", "README.md": card}).model
    assert model is not None
    assert model.license == "apache-2.0"


def test_a_model_cards_header_is_not_expanded(write: Write) -> None:
    merges = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    card = f"---\na0: &a0 {{x: 1}}\n{merges}license: 'mit'  # as upstream\n---\nlicense: gpl-3.0\n"
    model = suggested(write, {"w.gguf": b"GGUF", "README.md": card}).model
    assert model is not None
    assert model.license == "mit"


@pytest.mark.parametrize("said", ["other", "", "[mit]", "~", '"\\ud800"', "mit" + " " * 200_000 + "!"])
def test_a_model_card_that_names_no_licence_gives_none(write: Write, said: str) -> None:
    card = f"---\nlicense: {said}\n---\n"
    model = suggested(write, {"w.gguf": b"GGUF", "README.md": card}).model
    assert model is not None
    assert model.license == ""


def test_names_that_no_kitfile_can_hold_are_passed_over(tmp_path: Path) -> None:
    context = tmp_path / os.fsdecode(b"w\xff")
    (context / "m").mkdir(parents=True)
    (context / "m/model.gguf").write_bytes(b"GGUF")
    (context / "m/config.json").write_text('{"_name_or_path": "\\ud800"}')
    model = suggest_kitfile(context).model
    assert model is not None
    assert model.name == "m"
    (context / "MLmodel").write_text("")
    kitfile = suggest_kitfile(context)
    assert parse_kitfile(kitfile.to_yaml()) == kitfile


def test_very_many_files_of_several_kinds_take_few_layers(write: Write) -> None:
    side_by_side = {f"train/{n}.{suffix}": "" for n in range(1100) for suffix in ("jpg", "txt")}
    kitfile = suggested(write, side_by_side | {"w.gguf": b"GGUF", "train/sub/MLmodel": "", "train/sub/x.py": ""})
    assert [entry.path for _, entry in kitfile.entries()] == ["train/sub", "w.gguf", "train"]


def test_very_many_files_at_the_top_are_one_layer(write: Write) -> None:
    kitfile = suggested(
        write, {f"{n}.json": "" for n in range(1100)} | {"w.gguf": b"GGUF", "README.md": "", "a.py": ""}
    )
    assert [entry.path for _, entry in kitfile.entries()] == ["w.gguf", ".", "README.md"]


# fmt: off
names = st.sampled_from([
    "a.py", "b.csv", "c.json", "README.md", "LICENSE", "model.safetensors", "w.bin", "tokenizer.json", "MLmodel", "x",
    "adapter_config.json", "y.ipynb", "model-00001-of-00002.gguf", "saved_model.pb",
])
# fmt: on
folders = st.sampled_from(["", "src/", "data/", "docs/", "m/", "m/sub/", "lora/", "a.mlpackage/"])


@settings(deadline=None)
@given(st.sets(st.builds(str.__add__, folders, names), min_size=1, max_size=8))
def test_any_folder_gets_a_kitfile_that_packs_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, files: set[str]
) -> None:
    context = tmp_path_factory.mktemp("c")
    for name in files:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("{}")
    kitfile = suggest_kitfile(context)
    assert parse_kitfile(kitfile.to_yaml()) == kitfile
    pack(context, kitfile, None)
    assert {entry.name for entry in _entries(context, kitfile)} == files
