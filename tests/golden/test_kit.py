"""Every context that the real kit has packed gives the same layers, config and kinds of error here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import unpack
from airflow_provider_kitops.oci.descriptor import digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, UnsafePath
from airflow_provider_kitops.oci.layout import Layout

CASES = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "kit").glob("*.json"))}

#: What the message must say, where kit refuses.
MEANING = {
    "error-absolute": ["line 3", "absolute", "/etc/passwd", "model m"],
    "error-duplicate-path": ["line 4", "model m", "code layer 0", "same path a"],
    "error-escape": ["line 3", "../a", "leaves the context"],
    "error-missing-path": ["model", "nowhere", "does not exist"],
    "error-non-string-parameter-key": ["line 3", "key 1", "not text"],
    "error-part-type": ["line 3", "-bad type"],
    "error-unknown-key": ["line 3", "flavour"],
}
#: A file that kit leaves out without a word stops packing here.
LOUD = "two-dots-in-name"


def build(root: Path, case: dict[str, Any]) -> Path:
    context = root / "context"
    context.mkdir(mode=0o755)

    def made(path: str) -> Path:
        place = context / path
        for parent in reversed(place.relative_to(context).parents):
            (context / parent).mkdir(exist_ok=True)
            (context / parent).chmod(0o755)
        return place

    for file in case["files"]:
        place = made(file["path"])
        if "size" in file:
            whole, rest = divmod(file["size"], 16)
            place.write_bytes(b"0123456789abcdef" * whole + b"x" * rest)
        else:
            place.write_text(file["text"])
        place.chmod(int(file.get("mode", "644"), 8))
    for directory in case.get("dirs", []):
        place = made(directory["path"])
        place.mkdir()
        place.chmod(int(directory.get("mode", "755"), 8))
    for link in case.get("symlinks", []):
        made(link["path"]).symlink_to(link["to"])
    (context / "Kitfile").write_text(case["kitfile"])
    if "kitignore" in case:
        (context / ".kitignore").write_text(case["kitignore"])
    return context


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith("error-") and name not in (LOUD, "gzip")]
)
def test_layers_and_config_are_those_of_kit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    target = Layout(tmp_path / "layout", "golden/case")
    packed = pack(build(tmp_path, case), None, target, "v1")
    layers = [
        {"mediaType": layer.descriptor.media_type, "digest": layer.descriptor.digest, "size": layer.descriptor.size}
        for layer in packed.layers
    ]
    assert layers == (case["expect"]["layers"] or [])
    assert packed.config.decode() == case["expect"]["config"]
    assert digest_of(packed.config) == case["expect"]["config_digest"]
    assert ModelKit.read(target, "v1") == packed


def test_a_compressed_layer_has_the_diff_id_of_kit(tmp_path: Path) -> None:
    case = CASES["gzip"]
    target = Layout(tmp_path / "layout", "golden/case")
    packed = pack(build(tmp_path, case), None, target, compression="gzip")
    expected = json.loads(case["expect"]["config"])
    assert packed.layers[0].diff_id == expected["model"]["diffId"]
    assert packed.layers[0].descriptor.media_type == case["expect"]["layers"][0]["mediaType"]


@pytest.mark.parametrize("name", sorted(MEANING))
def test_what_kit_refuses_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    target = Layout(tmp_path / "layout", "golden/case")
    with pytest.raises(InvalidInput) as caught:
        pack(build(tmp_path, CASES[name]), None, target, "v1")
    for part in MEANING[name]:
        assert part in str(caught.value)
    assert target.tags() == []
    assert not list((tmp_path / "layout").rglob("sha256/*"))


def test_every_error_case_is_covered() -> None:
    assert {name for name in CASES if name.startswith("error-")} == set(MEANING)


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith("error-") and name not in (LOUD, "gzip")]
)
def test_in_the_form_of_kit_1_7_the_manifest_is_the_same_to_the_byte(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    # The kit that made these cases did not know its own version.
    version = {"ml.kitops.modelkit.cli-version": "unknown"}
    packed = pack(build(tmp_path, case), None, None, manifest_format="modelkit-v1.7", annotations=version)
    assert packed.manifest.decode() == case["expect"]["manifest"]
    assert packed.descriptor.digest == case["expect"]["manifest_digest"]


def test_on_request_a_name_with_two_dots_is_left_out_as_kit_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[LOUD]
    packed = pack(build(tmp_path, case), None, None, skip_two_dots=True)
    assert packed.config.decode() == case["expect"]["config"]
    assert "v1..2.bin is left out" in caplog.text


def test_a_name_with_two_dots_stops_packing(tmp_path: Path) -> None:
    target = Layout(tmp_path / "layout", "golden/case")
    with pytest.raises(UnsafePath, match=r"d/v1\.\.2\.bin"):
        pack(build(tmp_path, CASES[LOUD]), None, target, "v1")
    assert target.tags() == []


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("error-") and name != LOUD])
def test_a_manifest_that_kit_wrote_is_read_and_unpacked(name: str, tmp_path: Path) -> None:
    """Kit 1.7 writes neither media type nor artifact type, and ``null`` for no layers."""
    case = CASES[name]
    target = Layout(tmp_path / "layout", "golden/case")
    context = build(tmp_path, case)
    made = pack(context, None, target, compression="gzip" if name == "gzip" else "none")
    config, manifest = case["expect"]["config"].encode(), case["expect"]["manifest"].encode()
    if name == "gzip":
        # Go compresses to other bytes: put ours in place of kit's.
        old, new = case["expect"]["layers"][0], made.layers[0].descriptor
        config = config.replace(old["digest"].encode(), new.digest.encode())
        manifest = manifest.replace(old["digest"].encode(), new.digest.encode())
        manifest = manifest.replace(f'"size":{old["size"]}'.encode(), f'"size":{new.size}'.encode())
        manifest = manifest.replace(case["expect"]["config_digest"].encode(), digest_of(config).encode())
    target.push("application/vnd.kitops.modelkit.config.v1+json", config)
    descriptor = target.push("application/vnd.oci.image.manifest.v1+json", manifest)
    # This one has d/B and d/b.
    read = unpack(target, descriptor.digest, tmp_path / "out", allow_case_collisions=name == "order-bytewise")
    assert read.kitfile == made.kitfile
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert Path("Kitfile") in files
    for file in files - {Path("Kitfile")}:
        assert (tmp_path / "out" / file).read_bytes() == (context / file).read_bytes()
        assert (tmp_path / "out" / file).stat().st_mode & 0o7777 == (context / file).stat().st_mode & 0o777


def test_the_manifest_is_in_todays_form_and_the_same_each_time(tmp_path: Path) -> None:
    context = build(tmp_path, CASES["single-file-model"])
    first = pack(context, None, Layout(tmp_path / "one", "golden/case"), "v1")
    second = pack(context, None, Layout(tmp_path / "two", "golden/case"), "other")
    assert first.manifest == second.manifest
    manifest = json.loads(first.manifest)
    assert list(manifest) == ["schemaVersion", "mediaType", "artifactType", "config", "layers"]
    assert manifest["artifactType"] == "application/vnd.kitops.modelkit.manifest.v1+json"
    assert manifest["layers"][0]["annotations"] == {"org.cncf.model.filepath": "model.safetensors"}


def test_no_layers_is_a_list_not_null(tmp_path: Path) -> None:
    packed = pack(build(tmp_path, CASES["no-layers"]), None, Layout(tmp_path / "one", "golden/case"))
    assert b'"layers":[]' in packed.manifest
