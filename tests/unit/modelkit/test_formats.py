"""Raw and compressed layers, MCP servers, kit 1.7's manifests and ModelPacks."""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from airflow_provider_kitops.modelkit import manifest as media
from airflow_provider_kitops.modelkit._compression import Decompressed
from airflow_provider_kitops.modelkit.forms import Compression, LayerFormat, ManifestFormat
from airflow_provider_kitops.modelkit.kitfile import (
    Code,
    Dataset,
    Docs,
    Kitfile,
    LayerKind,
    McpServer,
    Model,
    ModelPart,
    Package,
    Prompt,
)
from airflow_provider_kitops.modelkit.manifest import LayerType
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.pack import pack
from airflow_provider_kitops.modelkit.unpack import Limits, unpack
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor, digest_of
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded, UnsafePath, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from tests.unit.modelkit.conftest import Write, tar_of

FILES = {"w.bin": "weights", "a/lora.bin": "adapter", "src/train.py": "pass", "d.csv": "1,2", "README.md": "# r"}
WHOLE = Kitfile(
    package=Package(name="pack", version="1", description="all", license="MIT", authors=("Ada",)),
    model=Model(name="net", path="w.bin", format="bin", license="Apache-2.0", parts=(ModelPart(path="a/lora.bin"),)),
    code=(Code(path="src/train.py"),),
    datasets=(Dataset(name="d", path="d.csv", license="MIT"),),
    docs=(Docs(path="README.md"),),
)


def same_files(directory: Path) -> None:
    for name, text in FILES.items():
        assert (directory / name).read_text() == text


@pytest.mark.parametrize("manifest_format", ["modelkit", "modelkit-v1.7", "modelpack"])
@pytest.mark.parametrize("compression", ["none", "gzip", "gzip-fastest", "zstd"])
@pytest.mark.parametrize("layer_format", ["tar", "raw"])
def test_every_form_comes_back_as_it_was(
    layout: Layout,
    write: Write,
    tmp_path: Path,
    manifest_format: ManifestFormat,
    compression: Compression,
    layer_format: LayerFormat,
) -> None:
    context = write(FILES)
    too_new = manifest_format == "modelkit-v1.7" and (layer_format == "raw" or compression == "zstd")
    if too_new or (manifest_format == "modelpack" and layer_format == "raw" and compression != "none"):
        with pytest.raises(InvalidInput):
            pack(context, WHOLE, layout, "v1", manifest_format=manifest_format, compression=compression,
                 layer_format=layer_format)  # fmt: skip
        assert layout.tags() == []
        return
    made = pack(context, WHOLE, layout, "v1", manifest_format=manifest_format, compression=compression,
                layer_format=layer_format)  # fmt: skip
    assert ModelKit.read(layout, "v1") == made
    assert made.kitfile == WHOLE
    assert [layer.diff_id for layer in made.layers] == [
        layer.diff_id for layer in pack(context, WHOLE, None, layer_format=layer_format).layers
    ]
    unpack(layout, "v1", tmp_path / "out")
    same_files(tmp_path / "out")
    again = pack(context, WHOLE, layout, "v1", manifest_format=manifest_format, compression=compression,
                 layer_format=layer_format)  # fmt: skip
    assert again.descriptor.digest == made.descriptor.digest


def test_a_raw_layer_is_the_file_itself_with_its_mode(layout: Layout, write: Write, tmp_path: Path) -> None:
    context = write({"run.sh": "#!/bin/sh\n"})
    (context / "run.sh").chmod(0o4755)
    made = pack(context, Kitfile(code=(Code(path="run.sh"),)), layout, "v1", layer_format="raw")
    (layer,) = made.layers
    assert layer.descriptor.media_type == "application/vnd.kitops.modelkit.code.v1.raw"
    assert layer.descriptor.digest == digest_of(b"#!/bin/sh\n")
    said = json.loads(layer.descriptor.annotations[media.FILE_METADATA])
    assert said == {
        "name": "run.sh", "mode": 0o755, "uid": 0, "gid": 0, "size": 10, "mtime": "1970-01-01T00:00:00Z",
        "typeflag": 0,
    }  # fmt: skip
    unpack(layout, "v1", tmp_path / "out")
    assert (tmp_path / "out/run.sh").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("path", ["src", ".", "two"])
def test_a_raw_layer_of_anything_but_one_file_is_refused(layout: Layout, write: Write, path: str) -> None:
    context = write({"src/train.py": "pass", "two/a": "1", "two/b": "2"})
    with pytest.raises(InvalidInput, match="not one file"):
        pack(context, Kitfile(code=(Code(path=path),)), layout, "v1", layer_format="raw")
    assert layout.tags() == []


def test_an_mcp_server_is_raw_and_never_compressed(layout: Layout, write: Write, tmp_path: Path) -> None:
    context = write({"tool.mcpb": "bundle", "p.md": "Say hello."})
    kitfile = Kitfile(prompts=(Prompt("hello", "p.md"),), mcp_servers=(McpServer("tool", "tool.mcpb"),))
    made = pack(context, kitfile, layout, "v1", compression="zstd")
    prompt, server = made.layers
    assert server.descriptor.media_type == "application/vnd.kitops.modelkit.mcpb.v1.raw"
    assert server.descriptor.digest == server.diff_id == digest_of(b"bundle")
    assert prompt.descriptor.annotations[media.LAYER_SUBTYPE] == "prompt"
    assert prompt.kind is LayerKind.PROMPT
    unpack(layout, "v1", tmp_path / "out")
    assert (tmp_path / "out/tool.mcpb").read_text() == "bundle"
    with pytest.raises(InvalidInput, match="ModelPack"):
        pack(context, kitfile, layout, "v2", manifest_format="modelpack")


def test_a_modelpack_says_what_the_specification_wants(layout: Layout, write: Write) -> None:
    created = datetime(2026, 1, 2, tzinfo=UTC)
    made = pack(write(FILES), WHOLE, layout, "v1", manifest_format="modelpack", created=created)
    manifest, config = json.loads(made.manifest), json.loads(made.config)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        f"application/vnd.cncf.model.{kind}.v1.tar" for kind in ("weight", "weight.config", "code", "dataset", "doc")
    ]
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in manifest["layers"]] == list(FILES)
    assert config == {
        "descriptor": {
            "createdAt": "2026-01-02T00:00:00Z",
            "authors": ["Ada"],
            "name": "net",
            "version": "1",
            "licenses": ["Apache-2.0", "MIT"],
            "title": "pack",
            "description": "all",
        },
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]},
        "config": {"format": "bin"},
    }


def foreign(layout: Layout, layers: list[tuple[str, bytes, dict[str, str]]], **config: object) -> Descriptor:
    """A ModelPack as another tool makes it: no Kitfile, one file a layer."""
    descriptors = [
        Descriptor.of(f"application/vnd.cncf.model.{kind}", blob, annotations=annotations)
        for kind, blob, annotations in layers
    ]
    for descriptor, (_, blob, _) in zip(descriptors, layers, strict=True):
        layout.push(descriptor, blob)
    whole = {"descriptor": {"name": "m", "licenses": ["MIT", "CC0-1.0"], "authors": None}, "config": {"format": "gguf"}}
    whole["modelfs"] = {"type": "layers", "diffIds": [digest_of(blob) for _, blob, _ in layers]}
    data = json.dumps({**whole, **config}).encode()
    made = Descriptor.of("application/vnd.cncf.model.config.v1+json", data)
    layout.push(made, data)
    return layout.push(MANIFEST, media.manifest_bytes(made, descriptors, {}, "modelpack"))


def test_a_modelpack_of_another_tool_is_read_from_its_annotations(layout: Layout, tmp_path: Path) -> None:
    made = foreign(
        layout,
        [
            ("weight.v1.raw", b"one", {"org.cncf.model.filepath": "m-1.gguf"}),
            ("weight.config.v1.raw", b"{}", {"org.opencontainers.image.title": "config.json"}),
            ("weight.v1.raw", b"two", {"org.cncf.model.filepath": "m-2.gguf"}),
            ("doc.v1.tar", tar_of(("docs/README.md", b"# r")), {"org.cncf.model.filepath": "docs"}),
            ("unheard.v1.raw", b"?", {}),
        ],
    )
    kit = unpack(layout, made.digest, tmp_path / "out")
    assert kit.kitfile == Kitfile(
        package=Package(name="m", license="MIT AND CC0-1.0"),
        model=Model(
            name="m", path="m-1.gguf", format="gguf", parts=(ModelPart(path="config.json"), ModelPart(path="m-2.gguf"))
        ),
        docs=(Docs(path="docs"),),
    )
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    del found["Kitfile"]
    assert found == {"m-1.gguf": b"one", "m-2.gguf": b"two", "config.json": b"{}", "README.md": b"# r"}


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ".", "x\0", "é" * 3000])
def test_a_raw_layer_cannot_name_a_place_outside(layout: Layout, tmp_path: Path, path: str) -> None:
    made = foreign(layout, [("weight.v1.raw", b"one", {"org.cncf.model.filepath": path})])
    with pytest.raises(UnsafePath):
        unpack(layout, made.digest, tmp_path / "in/out")
    assert not (tmp_path / "in").exists()


def test_what_contradicts_itself_in_a_modelpack_is_refused(layout: Layout, tmp_path: Path) -> None:
    here = {"org.cncf.model.filepath": "w"}
    size = json.dumps({"name": "w", "mode": 420, "size": 7})
    for layers, more, error in (
        ([("weight.v1.raw", b"one", {})], {}, InvalidInput),
        ([("weight.v1.raw", b"one", here)], {"modelfs": {"diffIds": []}}, VerificationFailed),
        ([("weight.v1.raw", b"one", here)], {"modelfs": {"diffIds": ["sha256:x"]}}, VerificationFailed),
        ([("weight.v1.raw", b"one", here)], {"modelfs": {"diffIds": [digest_of(b"two")]}}, VerificationFailed),
        ([("weight.v1.raw", b"one", {**here, media.FILE_METADATA: size})], {}, VerificationFailed),
        ([("weight.v1.raw", b"one", {**here, media.FILE_METADATA: "{"})], {}, VerificationFailed),
        ([("weight.v1.raw", b"one", {**here, media.FILE_METADATA: '{"mode":"x"}'})], {}, VerificationFailed),
        ([("weight.v1.raw", b"one", here)], {"descriptor": {"name": 1}}, InvalidInput),
        ([("weight.v1.raw", b"one", here)], {"descriptor": []}, InvalidInput),
    ):
        made = foreign(layout, layers, **more)
        with pytest.raises(error):
            unpack(layout, made.digest, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_media_types_of_nobody_are_no_layers() -> None:
    assert LayerType.parse("application/vnd.cncf.model.weight.config.v1.tar+zstd") == LayerType(
        "modelpart", "tar", "zstd"
    )
    for unknown in (
        "application/vnd.kitops.modelkit.weight.v1.tar",
        "application/vnd.cncf.model.model.v1.tar",
        "application/vnd.kitops.modelkit.model.v2.tar",
        "application/vnd.kitops.modelkit.model.v1.tarball",
        "text/plain",
    ):
        assert LayerType.parse(unknown) is None


def compressed_kit(layout: Layout, write: Write, compression: Compression, blob: bytes, plain: bytes) -> str:
    """A ModelKit whose one layer is ``blob`` and says that it unpacks to ``plain``."""
    made = pack(write({"w": "x"}), Kitfile(model=Model(path="w")), layout, compression=compression)
    old = made.layers[0]
    new = layout.push(old.descriptor.media_type, blob)
    config = made.config.replace(old.descriptor.digest.encode(), new.digest.encode())
    config = config.replace(old.diff_id.encode(), digest_of(plain).encode())
    pushed = layout.push(media.CONFIG_TYPE, config)
    return layout.push(MANIFEST, media.manifest_bytes(pushed, [new], {})).digest


def squeeze(compression: str, data: bytes) -> bytes:
    return zstandard.compress(data) if compression == "zstd" else gzip.compress(data)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_layer_that_is_damaged_is_refused(
    layout: Layout, write: Write, tmp_path: Path, compression: Compression
) -> None:
    plain = tar_of(("w", b"y" * 100_000))
    whole = squeeze(compression, plain)
    half = len(whole) // 2
    for blob in (whole[:half], whole[:-1], whole + b"junk", b"", b"junk", whole[:half] + b"\xff" + whole[half + 1 :]):
        digest = compressed_kit(layout, write, compression, blob, plain)
        with pytest.raises(VerificationFailed):
            unpack(layout, digest, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    digest = compressed_kit(layout, write, compression, whole, plain + b"more")
    with pytest.raises(VerificationFailed, match="diffId"):
        unpack(layout, digest, tmp_path / "out")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_members_and_frames_may_follow_each_other(
    layout: Layout, write: Write, tmp_path: Path, compression: Compression
) -> None:
    plain = tar_of(("w", b"y" * 100_000))
    blob = squeeze(compression, plain[:5000]) + squeeze(compression, plain[5000:])
    unpack(layout, compressed_kit(layout, write, compression, blob, plain), tmp_path / "out")
    assert (tmp_path / "out/w").read_bytes() == b"y" * 100_000


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_limit(layout: Layout, write: Write, tmp_path: Path, compression: Compression) -> None:
    plain = tar_of(("w", bytes(64 * 1024 * 1024)))
    digest = compressed_kit(layout, write, compression, squeeze(compression, plain), plain)
    with pytest.raises(LimitExceeded):
        unpack(layout, digest, tmp_path / "out", limits=Limits(bytes=1024 * 1024))
    assert not (tmp_path / "out").exists()


def test_a_frame_that_wants_too_much_memory_is_refused(layout: Layout, write: Write, tmp_path: Path) -> None:
    plain = tar_of(("w", b"y"))
    # Magic number, no content size, a window of 2^30 bytes, one last block that is not compressed (RFC 8878, 3.1.1).
    frame = b"\x28\xb5\x2f\xfd\x00\xa0" + (len(plain) << 3 | 1).to_bytes(3, "little") + plain
    digest = compressed_kit(layout, write, "zstd", frame, plain)
    with pytest.raises(VerificationFailed, match="decompressed"):
        unpack(layout, digest, tmp_path / "out")


def test_without_a_target_the_digest_is_the_same_and_nothing_is_kept(layout: Layout, write: Write) -> None:
    context = write(FILES)
    assert pack(context, WHOLE, None).descriptor == pack(context, WHOLE, layout, "v1").descriptor
    assert read(layout, layout.resolve("v1")) == pack(context, WHOLE, None).manifest


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_stream_of_nothing_but_ends_costs_little(compression: str) -> None:
    """A member or frame may have 20 bytes: what follows it must not be copied each time."""
    blob = squeeze(compression, b"") * 20_000
    left = memoryview(blob)

    def read(size: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:size]), left[size:]
        return piece

    begun = time.process_time()
    assert Decompressed(read, compression, "the stream").read(1) == b""
    assert time.process_time() - begun < 5, "copying the rest each time takes over a minute"
