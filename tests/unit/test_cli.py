"""The command as people run it: a process, its output, its exit code."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_kitops._cli.session import Session
from airflow_provider_kitops.cli import build_parser, main
from airflow_provider_kitops.evidence.attach import attach
from airflow_provider_kitops.evidence.signing import load_signer
from airflow_provider_kitops.evidence.statement import Statement, Subject
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.errors import InvalidReference
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.manifest import Links
from airflow_provider_kitops.oci.store import Store, StoreConfig
from airflow_provider_kitops.promotion.attest import attach_decision
from tests.unit.evidence.conftest import make_keys, put_manifest
from tests.unit.promotion.decisions import decision

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
COMMAND = [sys.executable, "-m", "airflow_provider_kitops"]
KITFILE = """\
manifestVersion: 1.0.0
package:
  name: demo
  version: 1.0.0
model:
  name: adapter
  path: model.bin
docs:
  - path: README.md
"""


class Command:
    """Runs ``modelkit`` in a directory of its own, with a layout, a home and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "MODELKIT_LAYOUT": str(directory / "layout"),
        }

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, cwd=self.directory,
            env=self.environment, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str, **more) -> dict:
        return json.loads(self(*arguments, "--json", **more).stdout)

    def pack(self, weights: str, reference: str, *flags: str) -> str:
        """A ModelKit with these weights; its digest."""
        context = self.directory / "ctx"
        context.mkdir(exist_ok=True)
        (context / "model.bin").write_text(weights)
        (context / "README.md").write_text("Read me.\n")
        (context / "Kitfile").write_text(KITFILE)
        return str(self.json("pack", "ctx", "-t", reference, *flags)["digest"])


@pytest.fixture
def modelkit(tmp_path) -> Command:
    return Command(tmp_path)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("modelkit: ")]
    assert "Traceback" not in done.stderr
    return line


# --- making and moving


def test_pack_answers_with_one_json_object_on_standard_output(modelkit, tmp_path):
    modelkit.pack("w", "demo/model:v1")
    answer = modelkit.json("pack", "ctx", "-t", "demo/model:v1,latest")
    assert answer["reference"] == f"demo/model@{answer['digest']}"
    assert answer["tags"] == ["v1", "latest"]
    assert answer["media_type"] == "application/vnd.oci.image.manifest.v1+json"
    assert answer["size"] > 0
    assert (tmp_path / "layout" / "demo" / "model" / "oci-layout").exists()


def test_pack_without_a_tag_means_latest(modelkit):
    modelkit.pack("w", "demo/model")
    assert modelkit.json("info", "demo/model")["kitfile"]["model"]["name"] == "adapter"
    assert modelkit.json("list")["modelkits"][0]["tags"] == ["latest"]


def test_pack_reads_the_kitfile_from_standard_input(modelkit, tmp_path):
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "ctx" / "Kitfile").unlink()
    modelkit("pack", "ctx", "-f", "-", "-t", "demo/model:v2", stdin=KITFILE.replace("adapter", "piped"))
    assert modelkit.json("info", "demo/model:v2")["kitfile"]["model"]["name"] == "piped"


def test_unpack_writes_what_the_filter_asks_for(modelkit, tmp_path):
    modelkit.pack("weights", "demo/model:v1")
    modelkit("unpack", "demo/model:v1", "-d", "out", "--filter", "model:adapter")
    assert (tmp_path / "out" / "model.bin").read_text() == "weights"
    assert not (tmp_path / "out" / "README.md").exists()


def test_unpack_says_that_a_filter_leaves_nothing(modelkit, tmp_path):
    modelkit.pack("weights", "demo/model:v1")
    assert modelkit("unpack", "demo/model:v1", "-d", "out", "-f", "datasets").stdout.startswith("nothing unpacked")
    assert modelkit.json("unpack", "demo/model:v1", "-d", "out", "-f", "datasets")["unpacked"] is False
    assert "'adaptor'" in error_of(modelkit("unpack", "demo/model:v1", "-d", "out", "-f", "model:adaptor", code=3))
    assert modelkit.json("unpack", "demo/model:v1", "-d", "out", "-f", "docs")["unpacked"] is True


def test_unpack_over_a_file_needs_to_be_told(modelkit, tmp_path):
    modelkit.pack("weights", "demo/model:v1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.bin").write_text("mine")
    told = error_of(modelkit("unpack", "demo/model:v1", "-d", "out", code=5))
    assert "already exists" in told
    assert "-o or -i; overwrite=True or ignore_existing=True" in told
    assert (tmp_path / "out" / "model.bin").read_text() == "mine"
    modelkit("unpack", "demo/model:v1", "-d", "out", "--overwrite")
    assert (tmp_path / "out" / "model.bin").read_text() == "weights"


def test_copy_keeps_digest_and_tag(modelkit):
    digest = modelkit.pack("w", "demo/model:v1")
    assert modelkit.json("copy", "demo/model:v1", "other/model")["tags"] == ["v1"]
    assert modelkit.json("inspect", "other/model:v1")["digest"] == digest
    assert modelkit.json("copy", f"demo/model@{digest}", "third/model:a,b")["tags"] == ["a", "b"]


def test_push_and_pull_need_a_registry(modelkit):
    for line in (["demo/model:v1"], ["demo/model:v1,latest"], ["demo/model:v1", "other/model:v1"]):
        assert "no registry" in error_of(modelkit("push", *line, code=2))
    assert "no registry" in error_of(modelkit("pull", "demo/model:v1", code=2))
    assert "Use copy" in error_of(modelkit("pull", "127.0.0.1:1/demo/model:v1", "127.0.0.1:2/demo/model:v1", code=2))


# --- naming and removing


def test_a_tag_is_set_and_removed(modelkit):
    digest = modelkit.pack("w", "demo/model:v1")
    assert modelkit.json("tag", "demo/model:v1", "demo/model:staging")["digest"] == digest
    assert modelkit.json("tag", "demo/model:v1", ":a,b")["tags"] == ["a", "b"]
    digest = modelkit.json("inspect", "demo/model:a")["digest"]
    assert modelkit.json("untag", "demo/model:a")["untagged"] == {"a": digest}
    assert modelkit("untag", "demo/model:b").stdout == f"untagged demo/model:b, which named {digest}\n"
    assert modelkit.json("list", "demo/model")["modelkits"][0]["tags"] == ["staging", "v1"]


def test_a_tag_that_may_not_move_is_a_conflict_that_shows_both_digests(modelkit):
    first = modelkit.pack("1", "demo/model:v1")
    second = modelkit.pack("2", "demo/model:v2")
    line = error_of(modelkit("tag", "demo/model:v2", "demo/model:v1", code=5))
    assert first in line
    assert second in line
    assert "--mutable-tags, or mutable_tags of the connection" in line
    modelkit("tag", "demo/model:v2", "demo/model:v1", "--mutable-tags", "v*")


def test_a_name_in_another_repository_costs_no_space(modelkit):
    digest = modelkit.pack("w", "demo/model:v1")
    assert modelkit.json("tag", "demo/model:v1", "other/model:v1")["reference"] == f"other/model@{digest}"
    layer = modelkit.json("inspect", "other/model:v1")["manifest"]["layers"][0]
    blobs = (modelkit.directory / "layout").glob(f"*/model/blobs/sha256/{layer['digest'].removeprefix('sha256:')}")
    assert len({blob.stat().st_ino for blob in blobs}) == 1
    assert "copy" in error_of(modelkit("tag", "demo/model:v1", "127.0.0.1:1/other/model:v1", code=2))


def test_remove_by_tag_leaves_what_other_tags_name(modelkit):
    digest = modelkit.pack("w", "demo/model:v1,v2")
    assert modelkit.json("remove", "demo/model:v1")["removed"] is False
    assert modelkit.json("inspect", "demo/model:v2")["digest"] == digest
    assert modelkit.json("remove", "demo/model:v2")["removed"] is True
    modelkit("inspect", f"demo/model@{digest}", code=3)


def test_remove_by_digest_or_by_force_removes_all_tags(modelkit):
    digest = modelkit.pack("w", "demo/model:v1,v2")
    assert modelkit.json("remove", f"demo/model@{digest}")["removed"] is True
    modelkit.pack("w", "demo/model:v1,v2")
    assert modelkit.json("remove", "demo/model:v1", "--force")["removed"] is True
    modelkit("inspect", "demo/model:v2", code=3)


def test_nothing_is_removed_by_a_default_tag(modelkit):
    modelkit.pack("w", "demo/model:latest")
    assert "neither tag nor digest" in error_of(modelkit("remove", "demo/model", code=2))


def test_untag_removes_all_or_nothing(modelkit):
    modelkit.pack("w", "demo/model:x,y")
    assert "nope" in error_of(modelkit("untag", "demo/model:x,nope", code=3))
    assert modelkit.json("list")["modelkits"][0]["tags"] == ["x", "y"]


# --- looking


def test_list_shows_all_repositories_or_one(modelkit):
    modelkit.pack("1", "demo/model:v1")
    modelkit.pack("2", "other:v1")
    assert {kit["repository"] for kit in modelkit.json("list")["modelkits"]} == {"demo/model", "other"}
    assert [kit["repository"] for kit in modelkit.json("list", "other")["modelkits"]] == ["other"]
    assert modelkit("list").stdout.splitlines()[0].split() == [
        "REPOSITORY", "TAGS", "DIGEST", "SIZE", "NAME", "VERSION",
    ]  # fmt: skip


def test_a_repository_that_is_not_there_is_not_found(modelkit):
    assert "There is no repository no/such" in error_of(modelkit("list", "no/such", code=3))
    modelkit.pack("1", "demo/model:v1")
    assert "There is no repository demo " in error_of(modelkit("list", "demo", "--json", code=3))
    modelkit("remove", "demo/model:v1")
    assert modelkit.json("list", "demo/model")["modelkits"] == []


def test_an_empty_layout_is_listed_as_empty(modelkit):
    assert modelkit.json("list")["modelkits"] == []


def test_info_prints_the_kitfile(modelkit):
    modelkit.pack("w", "demo/model:v1")
    assert "name: adapter" in modelkit("info", "demo/model:v1").stdout


def test_inspect_shows_the_manifest(modelkit):
    digest = modelkit.pack("w", "demo/model:v1")
    answer = modelkit.json("inspect", "demo/model:v1")
    assert answer["digest"] == digest
    assert answer["manifest"]["schemaVersion"] == 2
    assert answer["config"]["model"]["path"] == "model.bin"


def test_diff_exits_with_10_when_different(modelkit):
    modelkit.pack("1", "demo/model:v1")
    modelkit.pack("2", "demo/model:v2")
    assert modelkit.json("diff", "demo/model:v1", "demo/model:v1")["identical"] is True
    answer = modelkit.json("diff", "demo/model:v1", "demo/model:v2", code=10)
    assert answer["identical"] is False
    assert "model.bin" in json.dumps(answer)


def test_diff_says_none_of_what_one_side_has_not(modelkit, tmp_path):
    modelkit.pack("1", "demo/model:v1")
    (tmp_path / "ctx" / "dir" / "empty").mkdir(parents=True)
    (tmp_path / "ctx" / "dir" / "file").write_text("x")
    kitfile = KITFILE + "code:\n  - path: dir\n"
    modelkit("pack", "ctx", "-f", "-", "-t", "demo/model:v2", stdin=kitfile)
    lines = modelkit("diff", "demo/model:v1", "demo/model:v2", "--files", code=10).stdout.splitlines()
    assert "+ dir/empty: none -> directory, mode 755" in lines
    assert '+ code[0].path: none -> "dir"' in lines
    assert any(line.startswith("+ code dir: none -> sha256:") for line in lines)
    assert not any("None" in line or "null" in line for line in lines)


def test_the_whole_kitfile_is_a_field(modelkit):
    modelkit.pack("w", "demo/model:v1")
    answer = modelkit.json("info", "demo/model:v1", "--field", ".")
    assert answer["value"] == modelkit.json("info", "demo/model:v1")["kitfile"]


def test_what_has_no_name_goes_by_its_digest(modelkit):
    modelkit.pack("w", "demo/model:v1")
    answer = modelkit.json("pack", "ctx")
    assert answer["reference"] == f"_@{answer['digest']}"
    assert modelkit("pack", "ctx").stdout.startswith(f"packed {answer['digest']} (")
    modelkit("tag", answer["digest"], "demo/model:v2")
    modelkit("info", answer["reference"])
    assert modelkit("remove", answer["reference"]).stdout == f"removed {answer['digest']}\n"


def test_a_transfer_names_the_tags_that_were_set(modelkit):
    digest = modelkit.pack("w", "demo/model:v1")
    assert modelkit("copy", "demo/model:v1", "a/b:x,y").stdout.startswith(f"copied a/b@{digest} (x, y; ")
    assert modelkit("copy", f"demo/model@{digest}", "a/c").stdout.startswith(f"copied a/c@{digest} (without a tag; ")


def test_a_modelkit_cannot_forge_what_a_terminal_shows(modelkit, tmp_path):
    evil = "\x1b[2Jdemo\u202e\x9b1m\nforged row"
    modelkit.pack("w", "demo/model:v1")
    kitfile = KITFILE.replace("name: demo", f"name: {json.dumps(evil)}")
    modelkit("pack", "ctx", "-f", "-", "-t", "demo/model:v2", stdin=kitfile)
    for arguments in (["list"], ["info", "demo/model:v2"], ["inspect", "demo/model:v2"]):
        text = modelkit(*arguments).stdout
        assert not set(text) & set("\x1b\x9b\u202e"), arguments
    assert len(modelkit("list").stdout.splitlines()) == 3
    assert not set(modelkit("diff", "demo/model:v1", "demo/model:v2", code=10).stdout) & set("\x1b\x9b\u202e")
    for form in ("list", "inspect demo/model:v2"):
        assert "\x1b" not in modelkit(*form.split(), "--json").stdout
    assert modelkit.json("info", "demo/model:v2")["kitfile"]["package"]["name"] == evil


# --- evidence


def test_attested_and_verified(modelkit, tmp_path):
    keys = make_keys(tmp_path / "keys", "ed25519")
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text('{"result": "PASSED"}')
    (tmp_path / "notes.txt").write_text("notes")
    made = modelkit.json(
        "attest", "demo/model:v1", "--type", "https://example.com/p", "--predicate", "p.json", "--file", "notes.txt",
        "--key", str(keys.private),
    )  # fmt: skip
    answer = modelkit.json("verify", "demo/model:v1", "--key", str(keys.public), "--type", "https://example.com/p")
    [statement] = answer["statements"]
    assert statement["digest"] == made["digest"]
    assert statement["verified_by"]
    assert answer["size"] > 0


def test_verify_fails_where_a_signature_is_missing_or_a_type_is_absent(modelkit, tmp_path):
    keys = make_keys(tmp_path / "keys", "ed25519")
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    modelkit("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json")
    assert modelkit.json("verify", "demo/model:v1")["statements"][0]["verified_by"] is None
    assert "signed by a trusted key" in error_of(modelkit("verify", "demo/model:v1", "--key", str(keys.public), code=6))
    assert "of type other" in error_of(modelkit("verify", "demo/model:v1", "--type", "other", code=6))


def test_verify_finds_a_changed_byte(modelkit, tmp_path):
    modelkit.pack("weights", "demo/model:v1")
    [layer] = [
        layer
        for layer in modelkit.json("inspect", "demo/model:v1")["manifest"]["layers"]
        if "model" in layer["mediaType"].split(".v1.")[0].rpartition(".")[2]
    ]
    blob = tmp_path / "layout" / "demo" / "model" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    assert layer["digest"] in error_of(modelkit("verify", "demo/model:v1", code=6))


def test_verify_reads_what_nobody_knows_the_type_of(modelkit, tmp_path):
    target = Layout(tmp_path / "layout", "demo/model")
    kit = put_manifest(target, "weights")
    [_, layer] = Links.parse(kit.media_type, read(target, kit)).blobs
    reference = f"demo/model@{kit.digest}"
    assert modelkit.json("verify", reference)["content_read"] is True
    blob = tmp_path / "layout" / "demo" / "model" / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_bytes(b"weighty")
    assert layer.digest in error_of(modelkit("verify", reference, code=6))
    assert modelkit.json("verify", reference, "--no-content")["content_read"] is False


def test_every_answer_about_a_manifest_has_what_operators_return(modelkit, tmp_path):
    """``run`` has a test of its own."""
    digest = modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    (tmp_path / "r.json").write_bytes(decision(digest, None).to_bytes())
    manifest = tmp_path / "layout" / "demo" / "model" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    content = json.loads(manifest.read_text())
    size = manifest.stat().st_size + sum(part["size"] for part in (content["config"], *content["layers"]))
    for line in (
        "pack ctx -t demo/model:v1",
        "unpack demo/model:v1 -d out",
        "copy demo/model:v1 demo/other:v1",
        "tag demo/model:v1 :v2",
        "info demo/model:v1",
        "inspect demo/model:v1",
        "verify demo/model:v1",
        "verify demo/model:v1 --no-content",
        f"promote demo/model@{digest} --tag champion --report r.json",
        "remove demo/model:v2",
        "remove demo/other:v1",
    ):
        answer = modelkit.json(*line.split())
        assert answer.keys() >= {"reference", "digest", "tags", "size", "media_type"}, line
        assert (answer["digest"], answer["size"]) == (digest, size), line
    made = modelkit.json("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json")
    assert made["digest"] != digest
    assert made["size"] > 0


def test_a_damaged_modelkit_can_be_removed(modelkit, tmp_path):
    digest = modelkit.pack("w", "demo/model:v1")
    manifest = tmp_path / "layout" / "demo" / "model" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b"{", b"["))
    assert modelkit.json("remove", "demo/model:v1")["digest"] == digest
    assert modelkit.json("list")["modelkits"] == []


@pytest.mark.parametrize("predicate", ["", "[1]", "nothing", "[" * 100_000, '{"a": "\\ud800"}'])
def test_a_predicate_that_is_no_json_object_is_refused(modelkit, tmp_path, predicate):
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text(predicate)
    error = error_of(modelkit("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json", code=2))
    assert "JSON" in error


# --- promotion


def test_promoted_rolled_back_and_forward_again(modelkit, tmp_path):
    a, b = modelkit.pack("a", "demo/model:a"), modelkit.pack("b", "demo/model:b")
    (tmp_path / "first.json").write_bytes(decision(a, None).to_bytes())
    (tmp_path / "second.json").write_bytes(decision(b, a).to_bytes())
    promote = ("promote", f"demo/model@{a}", "--tag", "champion", "--report", "first.json")
    assert modelkit.json(*promote)["changed"] is True
    assert modelkit.json(*promote, "--expected", "none")["changed"] is False

    promote = ("promote", f"demo/model@{b}", "--tag", "champion", "--expected", a, "--report", "second.json")
    done = modelkit.json(*promote)
    assert (done["digest"], done["previous"], done["tags"], done["changed"]) == (b, a, ["champion"], True)
    assert done["history_tag"].endswith(a[7:19])
    assert modelkit.json(*promote)["statement"] == done["statement"]

    assert modelkit.json("rollback", "demo/model:champion", "--expected", b)["digest"] == a
    assert modelkit.json("rollback", "demo/model:champion", "--to", b)["digest"] == b
    history = modelkit.json("rollback", "demo/model:champion", "--list")["history"]
    assert [entry["digest"] for entry in history] == [a, b, a]


def test_a_promotion_that_may_not_be_says_why(modelkit, tmp_path):
    a, b = modelkit.pack("a", "demo/model:a"), modelkit.pack("b", "demo/model:b")
    (tmp_path / "reject.json").write_bytes(decision(a, None, "reject").to_bytes())
    (tmp_path / "other.json").write_bytes(decision(b, a).to_bytes())
    modelkit("promote", f"demo/model@{a}", "--tag", "champion", "--report", "reject.json", code=6)
    modelkit("promote", f"demo/model@{b}", "--tag", "champion", "--report", "other.json", code=6)
    conflict = modelkit(
        "promote", f"demo/model@{b}", "--tag", "champion", "--expected", a, "--report", "other.json", code=5
    )
    assert "names nothing" in error_of(conflict)
    assert "no digest" in error_of(
        modelkit("promote", "demo/model:a", "--tag", "champion", "--report", "reject.json", code=2)
    )
    assert "no tag" in error_of(modelkit("rollback", "demo/model", code=2))
    assert "champion" not in str(modelkit.json("list"))


# --- workloads


def test_run_makes_a_modelkit_of_what_a_program_writes(modelkit, tmp_path):
    digest = modelkit.pack("weights", "demo/model:v1")
    program = (
        "import json, os, pathlib;"
        "base = pathlib.Path(os.environ['KITOPS_INPUTS'], 'base', 'model.bin').read_text();"
        "out = pathlib.Path(os.environ['KITOPS_OUTPUT']);"
        "(out / 'model.bin').write_text(base.upper());"
        "(out / 'metrics.json').write_text(json.dumps({'loss': 0.5}))"
    )
    spec = {
        "inputs": {"base": "demo/model:v1"},
        "command": [sys.executable, "-c", program],
        "output": {
            "reference": "demo/tuned:v1",
            "kitfile": {
                "manifestVersion": "1.0.0",
                "package": {"name": "tuned"},
                "model": {"name": "tuned", "path": "model.bin"},
            },
        },
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    answer = modelkit.json("run", "spec.json", "--scratch", "scratch")
    assert answer["metrics"] == {"loss": 0.5}
    assert answer["tags"] == ["v1"]
    modelkit("unpack", answer["reference"], "-d", "out", "--filter", "model")
    assert (tmp_path / "out" / "model.bin").read_text() == "WEIGHTS"
    [provenance] = modelkit.json("verify", "demo/tuned:v1", "--type", "https://slsa.dev/provenance/v1")["statements"]
    assert provenance["digest"] == answer["provenance"]
    assert digest.removeprefix("sha256:")


@pytest.mark.parametrize("text", ["- a", "a: [", "inputs: {}\ncomand: [x]\n"])
def test_run_says_what_is_wrong_with_a_specification(modelkit, tmp_path, text):
    (tmp_path / "spec.yaml").write_text(text)
    assert "specification" in error_of(modelkit("run", "spec.yaml", code=2))


# --- errors, signals, pipes


def test_what_is_not_there_is_not_found(modelkit):
    assert "demo/model" in error_of(modelkit("info", "demo/model:v9", code=3))
    assert "demo/model" in error_of(modelkit("unpack", "demo/model:v9", "-d", "out", code=3))


@pytest.mark.parametrize("reference", ["Demo", "demo/model:", "demo/model@sha256:12", "demo model", ""])
def test_a_malformed_reference_is_usage(modelkit, reference):
    error_of(modelkit("info", reference, code=2))


def test_an_unknown_flag_or_verb_is_usage(modelkit):
    assert "usage" in modelkit("info", "x", "--nope", code=2).stderr
    assert "usage" in modelkit("frobnicate", code=2).stderr
    assert "usage" in modelkit(code=2).stderr


def test_a_file_that_is_not_there_is_named(modelkit):
    modelkit.pack("w", "demo/model:v1")
    line = error_of(modelkit("attest", "demo/model:v1", "--type", "t", "--predicate", "nowhere.json", code=2))
    assert "nowhere.json" in line


@pytest.mark.parametrize("kind", ["directory", "loop", "missing", "in the way"])
@pytest.mark.parametrize(
    "line",
    [
        "attest demo/model:v1 --type t --predicate {}",
        "attest demo/model:v1 --type t --predicate ctx/model.json --file {}",
        "attest demo/model:v1 --type t --predicate ctx/model.json --key {}",
        "verify demo/model:v1 --key {}",
        "promote demo/model@sha256:" + "a" * 64 + " --tag champion --report {}",
        "run {}",
        "pack ctx -f {} -t demo/model:v2",
        "list 127.0.0.1:1/demo/model --client-cert {}",
    ],
)
def test_a_file_that_cannot_be_read_is_usage(modelkit, tmp_path, line, kind):
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "ctx" / "model.json").write_text("{}")
    (tmp_path / "file").mkdir()
    if kind == "loop":
        (tmp_path / "file").rmdir()
        (tmp_path / "file").symlink_to("file")
    name = {"missing": "nowhere", "in the way": "ctx/Kitfile/below"}.get(kind, "file")
    assert name in error_of(modelkit(*(word.format(name) for word in line.split()), code=2))


def test_a_file_without_permission_is_usage(monkeypatch, capsys):
    def refused(self):  # root, who may run the tests, may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert main(["run", "spec.json"]) == 2
    assert capsys.readouterr().err == "modelkit: Cannot read spec.json: Permission denied.\n"


def test_a_context_that_is_no_directory_is_usage(modelkit, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below", "nowhere"):
        assert f"Cannot read {name}" in error_of(modelkit("pack", name, "-t", "demo/model:v1", code=2))


def test_common_flags_may_stand_before_the_verb_or_after_it(modelkit, tmp_path):
    modelkit.pack("w", "demo/model:v1")
    shutil.move(tmp_path / "layout", tmp_path / "elsewhere")
    before = json.loads(modelkit("--layout", "elsewhere", "--json", "list").stdout)
    after = json.loads(modelkit("list", "--layout", "elsewhere", "--json").stdout)
    assert before == after
    assert before["modelkits"]


def test_quiet_says_nothing_on_standard_error(modelkit):
    modelkit.pack("w", "demo/model:v1")
    assert modelkit("copy", "demo/model:v1", "other:v1", "--quiet").stderr == ""


def test_a_reader_that_has_enough_is_no_error(modelkit):
    modelkit.pack("w", "demo/model:v1")
    with subprocess.Popen(
        [*COMMAND, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=modelkit.environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("flag", ["--proxy", "--from-proxy"])
def test_no_password_of_a_proxy_stands_on_the_command_line(modelkit, flag):
    done = modelkit("copy", "r.example/a:b", "c/d", flag, "http://me:hidden@proxy.example:3128", code=2)
    assert "https_proxy in the environment" in done.stderr
    assert "hidden" not in done.stderr


def test_what_a_modelkit_holds_forges_no_line_of_the_log(modelkit):
    modelkit.pack("w", "demo/model:v1")
    kitfile = 'manifestVersion: 1.0.0\ndatasets:\n  - path: d\n    name: "e\\e[31m\\nmodelkit: all verified\\u202e"\n'
    (modelkit.directory / "ctx" / "Kitfile").write_text(kitfile + "    remotePath: demo/model:v1\n")
    modelkit("pack", "ctx", "-t", "demo/model:v2")
    done = modelkit("unpack", "demo/model:v2", "-d", "out", "-q")
    assert "is not fetched" in done.stderr
    assert not set(done.stderr) & {"\x1b", "\u202e"}
    assert not [line for line in done.stderr.splitlines() if line.startswith("modelkit: all")]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_do_no_harm(modelkit, closed):
    modelkit.pack("w", "demo/model:v1")
    for arguments, code in (("tag demo/model:v1 :v2", 0), ("info demo/model:v3", 3)):
        line = f"{' '.join(COMMAND)} {arguments} {closed}"
        done = subprocess.run(["sh", "-c", line], env=modelkit.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert modelkit.json("list")["modelkits"][0]["tags"] == ["v1", "v2"]


def test_an_interrupt_ends_with_130_and_one_line(modelkit, tmp_path):
    os.mkfifo(tmp_path / "predicate")  # the command waits here for somebody to write
    modelkit.pack("w", "demo/model:v1")
    arguments = ["attest", "demo/model:v1", "--type", "t", "--predicate", "predicate"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=modelkit.environment,
    ) as process:  # fmt: skip
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "modelkit: interrupted.\n")


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_transfers_in_other_threads_and_leaves_nothing(modelkit, tmp_path, number, code, said):
    modelkit.pack("small", "demo/model:v1")
    with (tmp_path / "ctx" / "model.bin").open("wb") as file:
        file.truncate(8 << 30)
    with subprocess.Popen(
        [*COMMAND, "pack", "ctx", "-t", "demo/model:v2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path, env=modelkit.environment,
    ) as process:  # fmt: skip
        time.sleep(1.5)
        process.send_signal(number)
        out, error = process.communicate(timeout=5)
    assert (process.returncode, out) == (code, "")
    assert error.splitlines()[-1] == f"modelkit: {said}."
    assert modelkit.json("list")["modelkits"][0]["tags"] == ["v1"]
    assert sum(path.stat().st_size for path in (tmp_path / "layout").rglob("*") if path.is_file()) < 100_000


def test_help_is_quick_and_names_every_verb(modelkit):
    text = modelkit("--help").stdout
    verbs = (
        "pack unpack push pull copy tag untag list info inspect diff remove login verify attest promote rollback run"
    )
    for verb in verbs.split():
        assert re.search(rf"^ +{verb} ", text, re.MULTILINE), verb


def test_heavy_libraries_are_not_imported_for_help():
    code = (
        "import sys, airflow_provider_kitops.cli as c; c.build_parser();"
        "print([m for m in ('airflow', 'torch', 'numpy', 'scipy', 'pydantic', 'requests', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "line",
    [
        ["list", "--layout", ""],
        ["pack", "", "-t", "demo/model"],
        ["unpack", "demo/model", "-d", ""],
        ["promote", "demo/model", "--tag", "champion", "--report", ""],
        ["verify", "demo/model", "--key", ""],
    ],
)
def test_an_empty_path_is_a_usage_error(modelkit, line):
    assert "the path is empty" in modelkit(*line, code=2).stderr


def test_whatever_goes_wrong_is_one_line(monkeypatch, capsys):
    def broken(session, text):
        raise RecursionError("so deep\nthat it hurts")

    monkeypatch.setattr(Session, "resolve", broken)
    assert main(["info", "demo/model"]) == 1
    assert capsys.readouterr().err == "modelkit: RecursionError: so deep that it hurts\n"


def test_a_layout_of_nobody_is_an_error(modelkit):
    assert "~nobody-knows/x" in error_of(modelkit("list", "--layout", "~nobody-knows/x", code=2))


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_number_above_0(modelkit, timeout):
    assert "--timeout" in modelkit("run", "spec.yaml", f"--timeout={timeout}", code=2).stderr


@pytest.mark.parametrize("text", ["[" * 100_000, "a: ["])
def test_a_specification_that_cannot_be_read_is_an_error(modelkit, tmp_path, text):
    (tmp_path / "spec.yaml").write_text(text)
    assert "spec.yaml is not YAML" in error_of(modelkit("run", "spec.yaml", code=2))


# --- credentials


def test_a_password_is_never_an_argument():
    with pytest.raises(SystemExit):
        build_parser().parse_args(["list", "--password", "x"])
    with pytest.raises(SystemExit):
        build_parser().parse_args(["list", "-p", "x"])


def test_a_user_without_a_password_is_told_how(modelkit):
    line = error_of(modelkit("list", "127.0.0.1:1/demo", "-u", "me", "--plain-http", code=2))
    assert "--password-stdin" in line


def test_credentials_for_two_registries_are_refused_before_anything_is_sent(modelkit):
    line = error_of(
        modelkit(
            "copy",
            "127.0.0.1:1/demo:v1",
            "127.0.0.2:1/demo:v1",
            "--plain-http",
            "-u",
            "me",
            "--password-stdin",
            stdin="secret",
            code=2,
        )
    )
    assert "127.0.0.1:1" in line
    assert "127.0.0.2:1" in line
    assert "secret" not in line


def session(*line: str) -> Session:
    return Session(build_parser().parse_args(line))


def test_token_hosts_reach_the_store():
    opened = session("list", "--token-hosts", "Auth.example,tokens.example").store("registry.example")
    assert opened.config.token_hosts == ("auth.example", "tokens.example")


def test_a_token_host_is_a_host(modelkit):
    line = error_of(modelkit("list", "127.0.0.1:1/demo", "--token-hosts", "https://auth.example", code=2))
    assert "token_hosts" in line


def test_each_side_of_a_copy_has_flags_of_its_own():
    copying = session(
        "copy", "one.example/a:v1", "two.example/a", "--proxy", "http://both:1", "--from-plain-http",
        "--to-token-hosts", "auth.example", "--to-proxy", "http://to:1",
    )  # fmt: skip
    one, two = copying.store("one.example", "from").config, copying.store("two.example", "to").config
    assert (one.plain_http, one.token_hosts, one.proxy) == (True, (), "http://both:1")
    assert (two.plain_http, two.token_hosts, two.proxy) == (False, ("auth.example",), "http://to:1")


def test_without_flags_for_one_side_both_share_a_store():
    copying = session("copy", "one.example/a:v1", "one.example/b", "--plain-http")
    assert copying.store("one.example", "from") is copying.store("one.example", "to")


def test_a_flag_for_the_side_that_is_the_layout_is_refused(modelkit):
    line = error_of(modelkit("copy", "demo/a:v1", "127.0.0.1:1/demo/a", "--from-plain-http", code=2))
    assert "--from-plain-http" in line


def test_login_keeps_nothing_when_the_registry_cannot_be_asked(modelkit, tmp_path):
    modelkit("login", "127.0.0.1:1", "-u", "me", "--password-stdin", "--plain-http", stdin="secret", code=7)
    assert not (tmp_path / "home" / ".docker").exists()


# --- documentation


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """The long flags of a parser and of its verbs."""
    found = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(flags_of(each) for each in action.choices.values()))
    return found


def test_init_writes_a_kitfile_once(modelkit):
    context = modelkit.directory / "net"
    context.mkdir()
    (context / "model.safetensors").write_text("w")
    (context / "tokenizer.json").write_text("{}")
    made = modelkit.json("init", "net", "--name", "net", "--desc", "d", "--author", "Ada", "--author", "Grace")
    assert made["path"] == "net/Kitfile"
    assert made["kitfile"]["package"] == {"name": "net", "description": "d", "authors": ["Ada", "Grace"]}
    assert made["kitfile"]["model"]["parts"] == [
        {"name": "tokenizer.json", "path": "tokenizer.json", "type": "tokenizer"}
    ]
    before = (context / "Kitfile").read_bytes()
    assert "--force" in error_of(modelkit("init", "net", code=5))
    assert (context / "Kitfile").read_bytes() == before
    modelkit("init", "net", "--force")
    assert "net/nowhere" in error_of(modelkit("init", "net/nowhere", code=2))
    modelkit.json("pack", "net", "-t", "demo/net:v1")


def test_a_dry_run_says_the_digest_and_keeps_nothing(modelkit):
    digest = modelkit.pack("1", "demo/model:v1")
    assert modelkit.json("pack", "ctx", "--dry-run")["digest"] == digest
    assert modelkit("pack", "ctx", "--dry-run").stdout.strip() == digest
    assert modelkit("pack", "ctx", "--dry-run", "-t", "demo/model:v2").stdout.strip() == digest
    assert len(modelkit.json("list")["modelkits"]) == 1


def test_what_is_packed_without_a_name_is_named_by_its_digest_until_it_gets_one(modelkit):
    digest = modelkit.pack("1", "demo/model:v1")
    made = modelkit.json("pack", "ctx")
    assert (made["reference"], made["tags"]) == (f"_@{digest}", [])
    assert digest in modelkit("pack", "ctx").stdout
    for name in (digest, f"_@{digest}"):
        assert modelkit.json("info", name)["digest"] == digest
    listed = [(row["repository"], row["tags"]) for row in modelkit.json("list")["modelkits"]]
    assert listed == [("_", []), ("demo/model", ["v1"])]
    tagged = modelkit.json("tag", digest, "demo/named:v1,v2")
    assert (tagged["reference"], tagged["tags"]) == (f"demo/named@{digest}", ["v1", "v2"])
    assert modelkit.json("inspect", "demo/named:v2")["digest"] == digest
    modelkit("remove", digest)
    modelkit("info", digest, code=3)
    assert modelkit.json("unpack", "demo/named:v1", "-d", "again")["digest"] == digest
    assert "repository:tag" in error_of(modelkit("pack", "ctx", "-t", "_", code=2))
    assert "repository:tag" in error_of(modelkit("tag", "demo/named:v1", "_", code=2))


def test_a_digest_alone_names_nothing_in_a_registry():
    store = Store(StoreConfig(registry="registry.example"))
    with pytest.raises(InvalidReference, match=r"names no repository.*registry\.example/repository@"):
        store.reference(f"sha256:{'0' * 64}")


def test_forms_are_written_and_read(modelkit):
    modelkit.pack("1", "demo/model:plain")
    for tag, flags in {
        "zstd": ("--compression", "zstd"),
        "raw": ("--layer-format", "raw"),
        "old": ("--format", "modelkit-v1.7"),
        "cncf": ("--use-model-pack",),
    }.items():
        modelkit.pack("1", f"demo/model:{tag}", *flags)
        modelkit("unpack", f"demo/model:{tag}", "-d", tag)
        assert (modelkit.directory / tag / "model.bin").read_text() == "1"
        assert modelkit("diff", "demo/model:plain", f"demo/model:{tag}", code=10 if tag == "raw" else 0)
    manifest = modelkit.json("inspect", "demo/model:cncf")["manifest"]
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert "never compressed" in error_of(
        modelkit(
            "pack", "ctx", "-t", "a/b:c", "--use-model-pack", "--layer-format", "raw", "--compression", "zstd", code=2
        )
    )


def test_a_field_is_printed_as_it_is(modelkit):
    modelkit.pack("1", "demo/model:v1")
    assert modelkit("info", "demo/model:v1", "--field", ".model.path").stdout == "model.bin\n"
    assert json.loads(modelkit("info", "demo/model:v1", "--field", "docs[0]").stdout) == {"path": "README.md"}
    assert modelkit.json("info", "demo/model:v1", "--field", "package.version")["value"] == "1.0.0"
    assert "has no docs[3]" in error_of(modelkit("info", "demo/model:v1", "--field", "docs[3]", code=3))
    assert "no path" in error_of(modelkit("info", "demo/model:v1", "--field", "a..b", code=2))
    assert "not an index" in error_of(modelkit("info", "demo/model:v1", "--label", "a=b", code=2))
    assert "KEY=VALUE" in error_of(modelkit("unpack", "demo/model:v1", "-d", "out", "--label", "a", code=2))


def test_diff_looks_into_layers_on_request(modelkit):
    modelkit.pack("1", "demo/model:v1")
    modelkit.pack("22", "demo/model:v2")
    answer = modelkit.json("diff", "demo/model:v1", "demo/model:v2", "--files", code=10)
    (file,) = answer["files"]
    assert (file["path"], file["old"]["size"], file["new"]["size"]) == ("model.bin", 1, 2)
    assert "files" not in modelkit.json("diff", "demo/model:v1", "demo/model:v2", code=10)
    assert "~ model.bin: sha256:" in modelkit("diff", "demo/model:v1", "demo/model:v2", "--files", code=10).stdout


def test_the_page_names_every_flag_and_every_exit_code_and_no_other():
    text = DOCS.read_text()
    every = flags_of(build_parser())
    told_of_together = {flag for flag in every if flag.startswith(("--from-", "--to-"))}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])", text))
    assert every - told_of_together - named == {"--version"}
    assert named <= every
    codes = set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE))
    assert codes == set(re.findall(r"\b(\d+) [a-z]", build_parser().epilog.partition("exit codes:")[2]))


def shell_blocks(kind: str) -> str:
    """The examples of docs/cli.md and docs/modelkits.md that are marked as ``kind`` (a pattern), in their order."""
    text = DOCS.read_text() + (DOCS.parent / "modelkits.md").read_text()
    blocks = re.finditer(rf"^```(?:{kind})\n(?P<body>.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return "\n".join(block["body"] for block in blocks)


def test_the_examples_of_the_documentation_work(tmp_path):
    script = f'modelkit() {{ "{sys.executable}" -m airflow_provider_kitops "$@"; }}\n' + shell_blocks("sh")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- what is attached, read back


TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def test_a_promotion_takes_the_decision_that_verify_writes(modelkit, tmp_path):
    keys = make_keys(tmp_path / "keys", "ed25519")
    digest = modelkit.pack("w", "demo/model:v1")
    target = Layout(tmp_path / "layout", "demo/model")
    attach_decision(target, decision(digest, None), files={"report.json": b"{}"}, signer=load_signer(keys.private))
    verify = ("verify", f"demo/model@{digest}", "--key", str(keys.public), "--type", TEST_RESULT, "-d", "evidence")
    [statement] = modelkit.json(*verify)["statements"]
    [made] = (tmp_path / "evidence").iterdir()
    assert made.name == f"test-result-{statement['digest'][7:19]}"
    assert sorted(file.name for file in made.iterdir()) == ["decision.json", "predicate.json", "report.json"]
    assert sorted(tmp_path / file for file in statement["files"]) == sorted(made.iterdir())
    assert json.loads((made / "predicate.json").read_text())["result"] == "PASSED"
    assert "decision.json" in modelkit(*verify).stdout, "done twice it is no conflict"
    modelkit(
        "promote", f"demo/model@{digest}", "--tag", "champion", "--report", str(made / "decision.json"),
        "--verify-key", str(keys.public),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["../../x", "https://example.com/..", "v1", "a b\x1b/v2", "", "x" * 500])
def test_what_verify_writes_stays_in_its_directory_and_has_plain_names(modelkit, tmp_path, kind):
    target = Layout(tmp_path / "layout", "demo/model")
    subject = target.resolve(modelkit.pack("w", "demo/model:v1"))
    hostile = {"-rf": b"1", ".profile": b"2", "a\x1b[2Jb": b"3", "PREDICATE.json": b"4", "é" * 300: b"5", "_": b"6"}
    attach(target, subject, Statement([Subject("m", subject.digest)], kind or "?", {"a": 1}), files=hostile)
    before = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents}
    modelkit("verify", "demo/model:v1", "-d", "out")
    [made] = (tmp_path / "out").iterdir()
    written = list(made.iterdir())
    assert len(written) == len(hostile) + 1
    for path in (made, *written):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}", path.name), path.name
    assert json.loads((made / "predicate.json").read_text()) == {"a": 1}
    assert {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents} == before | {tmp_path / "out"}


def test_verify_writes_over_nothing_and_through_no_link(modelkit, tmp_path):
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    made = modelkit.json("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json")
    into = tmp_path / "out" / f"t-{made['digest'][7:19]}"
    into.mkdir(parents=True)
    (into / "predicate.json").symlink_to(tmp_path / "elsewhere")
    assert "predicate.json" in error_of(modelkit("verify", "demo/model:v1", "-d", "out", code=5))
    assert not (tmp_path / "elsewhere").exists()
    (into / "predicate.json").unlink()
    (into / "predicate.json").write_text("mine")
    modelkit("verify", "demo/model:v1", "-d", "out", code=5)
    assert (into / "predicate.json").read_text() == "mine"


def test_a_file_that_the_signature_does_not_cover_is_told(modelkit, tmp_path):
    keys = make_keys(tmp_path / "keys", "ed25519")
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    sign = ("--type", "t", "--predicate", "p.json", "--key", str(keys.private), "--file", "p.json")
    modelkit("attest", "demo/model:v1", *sign)
    assert "does not cover" in modelkit("verify", "demo/model:v1", "--key", str(keys.public), "-d", "out").stderr


@pytest.mark.parametrize("line", ["info {}", "inspect {}", "verify {}", "unpack {} -d out"])
def test_the_tag_that_was_asked_by_is_reported(modelkit, line):
    digest = modelkit.pack("w", "demo/model:v1,latest")
    for reference, tags in (("demo/model:v1", ["v1"]), ("demo/model", ["latest"]), (f"demo/model@{digest}", [])):
        assert modelkit.json(*line.format(reference).split(), *(["-o"] if "unpack" in line else []))["tags"] == tags


def test_a_statement_has_no_tag(modelkit, tmp_path):
    modelkit.pack("w", "demo/model:v1")
    (tmp_path / "p.json").write_text("{}")
    assert modelkit.json("attest", "demo/model:v1", "--type", "t", "--predicate", "p.json")["tags"] == []


def test_where_only_promotion_may_move_a_tag_the_others_leave_it_alone(modelkit, tmp_path):
    a, b = modelkit.pack("a", "demo/model:a,champion"), modelkit.pack("b", "demo/model:b")
    (tmp_path / "r.json").write_bytes(decision(b, a).to_bytes())
    others = ("--mutable-tags", "latest,challenger,staging")
    assert "champion" in error_of(modelkit("tag", "demo/model:b", ":champion", *others, code=5))
    promote = ("promote", f"demo/model@{b}", "--tag", "champion", "--expected", a, "--report", "r.json")
    assert "must not move" in error_of(modelkit(*promote, *others, code=5))
    assert modelkit.json(*promote, "--mutable-tags", "champion")["changed"] is True


# --- words that say what to do


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


def test_an_unknown_flag_is_told_with_the_usage_of_its_verb_and_the_nearest_flag(modelkit):
    done = modelkit("verify", "demo/model:v1", "--no-contents=s3cret", "-xs3cret", code=2)
    assert done.stderr.startswith("usage: modelkit verify ")
    assert "unknown flag --no-contents (did you mean --no-content?); unknown flag -x" in last_line(done)
    assert "s3cret" not in done.stderr
    done = modelkit("info", "demo/model:v1", "demo/model:v2", code=2)
    assert done.stderr.startswith("usage: modelkit info ")
    assert "demo/model:v2" in last_line(done)


@pytest.mark.parametrize(
    "line",
    [
        "login 127.0.0.1:1 -u me --password s3cret",
        "login --password=s3cret 127.0.0.1:1",
        "login 127.0.0.1:1 -p s3cret",
        "login 127.0.0.1:1 -ps3cret",
        "--password s3cret login 127.0.0.1:1",
    ],
)
def test_a_password_on_the_command_line_is_not_repeated(modelkit, line):
    done = modelkit(*line.split(), code=2)
    assert done.stderr.startswith("usage: modelkit login ")
    assert "--password-stdin" in last_line(done)
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("list 127.0.0.1:5071", "For a whole registry write 127.0.0.1:5071/."),
        ("list localhost:5000", "For a whole registry write localhost:5000/."),
        ("list http://127.0.0.1:5071/demo", "without scheme"),
        ("list http://127.0.0.1:5071/", "without scheme"),
        ("push demo/model:v1 http://127.0.0.1:5071/demo/model", "without scheme"),
        ("untag demo/model@sha256:" + 64 * "0", "only tags are taken away"),
        ("remove demo/model:v1,v2", "more than one tag"),
        ("info sha256:8320d9", "64 hex digits"),
        ("pack ctx --annotation a=1 --annotation a=2", "'a' two values: '1' and '2'"),
        ("unpack demo/model:v1 --label a=1 --label a=2", "'a' two values"),
        ("tag demo/model:v1 v5", "write :v5"),
    ],
)
def test_what_was_meant_is_told(modelkit, line, told):
    modelkit.pack("w", "demo/model:v1")
    assert told in error_of(modelkit(*line.split(), code=2))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("list --concurrency x", "'x' is no whole number above 0"),
        ("run spec.yaml --timeout x", "'x' is no number above 0"),
        ("info demo/model:v1 --field=", "the path is empty"),
        ("pack ctx --format modelkit-v1.7 --use-model-pack", "not allowed with"),
    ],
)
def test_what_is_wrong_with_a_flag_is_told(modelkit, line, told):
    assert told in modelkit(*line.split(), code=2).stderr


def test_a_registry_that_reads_as_a_repository_is_told(modelkit):
    line = error_of(modelkit("list", "registry.example.com", code=3))
    assert "For a whole registry write registry.example.com/." in line


def test_a_layout_that_is_not_there_is_listed_as_empty_with_a_note(modelkit, tmp_path):
    done = modelkit("list", "--layout", "typo", "--json")
    assert json.loads(done.stdout) == {"modelkits": []}
    assert "There is no layout in typo yet." in done.stderr
    modelkit.pack("w", "demo/model:v1")
    assert modelkit("list").stderr == ""


def test_rollback_says_what_to_do_in_its_own_words(modelkit, tmp_path):
    a, b = modelkit.pack("a", "demo/model:a,champion"), modelkit.pack("b", "demo/model:b")
    line = error_of(modelkit("rollback", "demo/model:champion", "--expected", b, code=5))
    assert "rollback demo/model:champion --list" in line
    assert "challenger" not in line
    assert a in line
    assert "There is nothing to go back to." in error_of(modelkit("rollback", "demo/model:champion", code=3))
