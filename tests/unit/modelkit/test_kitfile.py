"""A Kitfile is read as kit reads it, and every error in it is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit import _gojson
from airflow_provider_kitops.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    LayerIds,
    LayerKind,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
    find_kitfile,
    parse_config,
    parse_kitfile,
)
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile


def parameters(text: str) -> Any:
    model = parse_kitfile(f"manifestVersion: 1.0.0\nmodel: {{path: a, parameters: {{x: {text}}}}}\n").model
    assert model is not None
    return model.parameters["x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("1_000", 1000),
        ("014", 12),
        ("0o14", 12),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0b101", 5),
        ("08", 8.0),
        ("+5", 5),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 1.8446744073709552e19),
        ("-9223372036854775809", -9.223372036854775808e18),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        (".25_0", 0.25),
        ("._5", "._5"),
        ("1e999", "1e999"),
        ("1.2.3", "1.2.3"),
        ("2026-11-21", "2026-11-21T00:00:00Z"),
        ("2026-1-2 3:04:05.50", "2026-01-02T03:04:05.5Z"),
        ("2026-11-21T10:00:00+02:00", "2026-11-21T10:00:00+02:00"),
        ("2026-11-21T10:00:00+00:00", "2026-11-21T10:00:00Z"),
        ("2026-02-30", "2026-02-30"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!int '7'", 7),
        ("!!float 7", 7.0),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ],
)
def test_scalars_have_the_values_that_kit_gives_them(text: str, value: Any) -> None:
    found = parameters(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1200.0, "1200"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-7"),
        (2e-5, "0.00002"),
        (1e-6, "0.000001"),
        (1.5e-10, "1.5e-10"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_numbers_are_written_as_go_does(number: float, text: str) -> None:
    assert _gojson.number(number) == text


def test_text_is_escaped_as_go_does() -> None:
    assert _gojson.dumps({"a": '<&>"\\\u2028\b\f\n\x01é\x7f'}) == (
        '{"a":"\\u003c\\u0026\\u003e\\"\\\\\\u2028\\b\\f\\n\\u0001é\x7f"}'.encode()
    )


def test_text_fields_keep_what_was_written() -> None:
    kitfile = parse_kitfile("manifestVersion: 1.0.0\npackage: {version: 1.0, name: 014, description: true, license: ~}")
    assert kitfile.package == Package(version="1.0", name="014", description="true")


def test_all_errors_are_named_at_once_with_their_lines() -> None:
    text = "manifestVersion: 1.0.0\npackage:\n  nam: x\nmodel: [1]\ncode: x\ndocs:\n  - path: {a: b}\n  - paht: y\n"
    with pytest.raises(InvalidKitfile) as caught:
        parse_kitfile(text, name="my.kitfile")
    message = str(caught.value)
    assert "my.kitfile has 5 errors" in message
    for part in (
        "line 3: unknown key nam in package (did you mean name?)",
        "line 4: model must be a mapping",
        "line 5: code must be a list",
        "line 7: docs.0.path must be text",
        "line 8: unknown key paht in docs.1 (did you mean path?)",
    ):
        assert part in message


def test_all_broken_rules_are_named_at_once() -> None:
    text = """manifestVersion: 1.0.0
model: {name: m, path: /abs, parts: [{path: p, type: "-x"}, {path: ./p/}]}
datasets:
  - {name: a, path: a, remotePath: "s3://bucket/c"}
  - {name: b, path: b, remotePath: "ftp://b/c"}
  - {name: c, path: c, remoteHash: "sha256:0"}
code: [{path: ../up}]
mcpServers: [{name: s, path: s.zip}, {name: s, path: t.mcpb}]
"""
    with pytest.raises(InvalidKitfile) as caught:
        parse_kitfile(text)
    message = str(caught.value)
    for part in (
        "line 2: absolute paths",
        "line 2: modelpart 0 has the invalid type",
        "modelpart 0 and modelpart 1 use the same path p",
        "line 4: dataset a has an s3:// remotePath",
        "line 5: the remotePath ftp://b/c",
        "line 6: dataset c has a remoteHash",
        "line 7: the path ../up in code layer 0 leaves the context",
        "line 8: the path 's.zip'",
        "line 8: mcpServer s needs a name of its own",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "line 2"),
        ("package: {name: a, name: b}\n", "already defined at line 1"),
        ("package: !!python/object:os.system {}\n", "tag"),
        ("model: {path: a, parameters: {x: .nan}}\n", "JSON has no form"),
        ("model: {path: a, parameters: &a {x: *a}}\n", "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\0", "special characters"),
        ('package: {name: "\\ud83d"}', "surrogate"),
        ('package: {name: "\\U00110000"}', "escape"),
    ],
)
def test_what_is_no_kitfile_is_refused_with_the_reason(text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidKitfile, match=says):
        parse_kitfile(text)


def test_aliases_that_expand_without_end_are_refused() -> None:
    lines = ["manifestVersion: 1.0.0", "model:", "  path: a", "  parameters:", "    a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"    a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(InvalidKitfile, match="aliases expand"):
        parse_kitfile("\n".join(lines))


def test_merge_keys_and_anchors_work_and_own_keys_win() -> None:
    text = (
        "manifestVersion: 1.0.0\nmodel:\n  path: a\n  parameters:\n    base: &b {x: 1, y: 2}\n    own: {<<: *b, y: 3}\n"
    )
    model = parse_kitfile(text).model
    assert model is not None
    assert model.parameters["own"] == {"x": 1, "y": 3}


def test_only_the_first_document_is_read() -> None:
    assert parse_kitfile("package: {name: a}\n---\nnonsense: 1\n").package.name == "a"


def test_a_model_path_that_parses_as_a_reference_is_one() -> None:
    based = parse_kitfile("model: {path: 'reg.io/base:v1', parts: [{path: adapter}]}")
    assert based.base_reference == "reg.io/base:v1"
    assert [kind for kind, _ in based.entries()] == [LayerKind.MODEL_PART]
    assert parse_kitfile("model: {path: weights/a.bin}").base_reference is None


def test_a_config_with_keys_of_later_versions_is_still_read() -> None:
    ids = LayerIds("sha256:" + "a" * 64, "sha256:" + "b" * 64)
    kitfile = Kitfile(model=Model(name="m", path="w"))
    value = json.loads(kitfile.to_config_json([ids]))
    value["novelty"] = {"a": 1}
    value["model"]["novelty"] = 2
    assert parse_config(json.dumps(value).encode()) == (kitfile, (ids,))


def test_find_kitfile_prefers_the_capital(tmp_path: Path) -> None:
    (tmp_path / ".kitfile").write_text("a")
    assert find_kitfile(tmp_path).name == ".kitfile"
    (tmp_path / "Kitfile").write_text("b")
    assert find_kitfile(tmp_path).name == "Kitfile"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no Kitfile"):
        find_kitfile(tmp_path / "empty")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["yes", "1", "1e3", "014", "null", "~", "", "a: b", "# x", "2026-11-21", "a\nb", " x ", "<<", "=", "\t", "- a", "'"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def kitfiles(draw: st.DrawFn) -> Kitfile:
    paths = iter(f"p{number}" for number in range(100))
    some = st.integers(0, 2)
    model = Model(
        draw(texts),
        next(paths),
        draw(texts),
        version=draw(texts),
        parts=tuple(ModelPart(draw(texts), next(paths), type="lora") for _ in range(draw(some))),
        parameters=draw(values),
    )
    return Kitfile(
        package=Package(draw(texts), draw(texts), draw(texts), authors=tuple(draw(st.lists(texts, max_size=3)))),
        model=draw(st.none() | st.just(model)),
        code=tuple(Code(next(paths), draw(texts)) for _ in range(draw(some))),
        datasets=tuple(Dataset(draw(texts), next(paths), parameters=draw(values)) for _ in range(draw(some))),
        docs=tuple(Docs(next(paths), draw(texts)) for _ in range(draw(some))),
        prompts=tuple(Prompt(draw(texts), next(paths)) for _ in range(draw(some))),
        mcp_servers=tuple(McpServer(f"s{n}", f"{next(paths)}.mcpb") for n in range(draw(some))),
    )


@given(kitfiles())
@example(Kitfile(datasets=(Dataset(path="p1", parameters=-0.0),)))
@example(Kitfile(datasets=(Dataset(path="p1", parameters=[1.8446744073709552e19, -1e19, 9.3e18]),)))
@example(Kitfile(prompts=(Prompt("\x85", "p1", "a\r\nb\u2028c\u2029"),)))
def test_a_rendered_kitfile_reads_back_as_the_same(kitfile: Kitfile) -> None:
    again = parse_kitfile(kitfile.to_yaml())
    assert again.to_config_json() == kitfile.to_config_json()
    read, _ = parse_config(kitfile.to_config_json())
    assert read.to_config_json() == kitfile.to_config_json()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket", "names no single object"),
        ("s3://bucket/", "names no single object"),
        ("s3://bucket/dir/", "names no single object"),
        ("s3://bucket/dir/..", "names no single object"),
        ("s3://b/key", "'b', which is too short"),
        ("s3://arn:aws:s3/key", "'arn:aws:s3', which is no name"),
    ],
)
def test_an_address_of_no_object_is_refused_before_it_is_packed(address: str, said: str) -> None:
    dataset = f"datasets:\n  - {{name: d, path: d, remotePath: '{address}', remoteHash: '{64 * 'a'}'}}\n"
    with pytest.raises(InvalidKitfile, match=f"line 4: the remotePath {address} of dataset d .*{said}"):
        parse_kitfile(f"manifestVersion: 1.0.0\npackage: {{}}\n{dataset}")
    config = {"manifestVersion": "1.0.0", "datasets": [{"name": "d", "path": "d", "remotePath": address}]}
    assert parse_config(json.dumps(config).encode())[0].datasets[0].remote_path == address
