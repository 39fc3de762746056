"""A decision is good for one promotion, and nothing forged stands in for the statement of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kitops.evidence.attach import ATTESTATION, PREDICATE_TYPE_ANNOTATION, attach, find
from airflow_provider_kitops.evidence.signing import load_signer
from airflow_provider_kitops.evidence.statement import PROMOTION, Statement, Subject
from airflow_provider_kitops.oci.content import read
from airflow_provider_kitops.oci.descriptor import EMPTY, MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import Conflict, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.promotion import promote as promote_module
from airflow_provider_kitops.promotion.attest import attach_decision, read_decision
from airflow_provider_kitops.promotion.promote import promote, rollback
from tests.unit.evidence.conftest import make_keys, put_manifest
from tests.unit.promotion.decisions import decision

TAG = "champion"
NAMES = {
    PREDICATE_TYPE_ANNOTATION: PROMOTION,
    "airflow-provider-kitops.promotion.tag": TAG,
    "airflow-provider-kitops.promotion.action": "promote",
}


@pytest.fixture
def target(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", "demo/model")


@pytest.fixture
def a(target: Layout) -> str:
    return put_manifest(target, "a").digest


@pytest.fixture
def b(target: Layout) -> str:
    return put_manifest(target, "b").digest


def test_a_decision_does_not_undo_a_rollback(target: Layout, a: str, b: str) -> None:
    promote(target, a, TAG, None, decision=decision(a, None))
    made = decision(b, a)
    first = promote(target, b, TAG, a, decision=made)
    assert not promote(target, b, TAG, a, decision=made).changed
    rollback(target, TAG, expected=b)
    tags = target.tags()
    with pytest.raises(Conflict, match=r"before, by this decision.*Judge again.*--to " + b):
        promote(target, b, TAG, a, decision=made)
    assert target.resolve(TAG).digest == a
    assert target.tags() == tags
    # By hand it comes back, and then the promotion has nothing to do.
    rollback(target, TAG, to=b)
    assert not promote(target, b, TAG, a, decision=made).changed
    assert first.changed


def test_a_decision_is_used_up_even_if_the_tag_was_moved_away_without_a_history(target: Layout, a: str, b: str) -> None:
    promote(target, a, TAG, None, decision=decision(a, None))
    promote(target, b, TAG, a, decision=decision(b, a))
    target.tag(target.resolve(a), TAG)
    with pytest.raises(Conflict, match="before, by this decision"):
        promote(target, b, TAG, a, decision=decision(b, a))


def test_a_decision_whose_promotion_was_cut_off_does_not_undo_a_rollback(
    target: Layout, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(target, a, TAG, None, decision=decision(a, None))

    def die(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(promote_module, "attach_move", die)
        with pytest.raises(KeyboardInterrupt):
            promote(target, b, TAG, a, decision=decision(b, a))
    rollback(target, TAG, expected=b)
    with pytest.raises(Conflict, match="before, by this decision"):
        promote(target, b, TAG, a, decision=decision(b, a))


def test_a_decision_that_was_used_in_another_registry_is_good_here(target: Layout, a: str) -> None:
    said = {"action": "promote", "tag": TAG, "repository": f"staging.example.com/{target.name}"}
    said["decision"] = {"digest": {"sha256": decision(a, None).digest[7:]}}  # type: ignore[assignment]
    attach(target, target.resolve(a), Statement([Subject("x", a)], PROMOTION, said), annotations=NAMES)
    assert promote(target, a, TAG, None, decision=decision(a, None)).changed


def forged(target: Layout, subject: str) -> Descriptor:
    """A referrer that has the annotations of a promotion statement, and nothing more."""
    about = target.resolve(subject)
    empty = target.push(EMPTY, b"{}").to_json()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ATTESTATION,
        "config": empty,
        "layers": [empty],
        "subject": Descriptor(about.media_type, about.digest, about.size).to_json(),
        "annotations": NAMES,
    }
    return target.push(MANIFEST, json.dumps(manifest).encode())


def test_a_forged_referrer_does_not_stand_in_for_the_statement(target: Layout, a: str) -> None:
    forgery = forged(target, a)
    done = promote(target, a, TAG, None, decision=decision(a, None))
    assert done.statement not in (None, forgery.digest)
    assert promote(target, a, TAG, None, decision=decision(a, None)).statement == done.statement


def test_a_statement_that_nobody_signed_does_not_stand_in_for_a_signed_one(
    target: Layout, a: str, tmp_path: Path
) -> None:
    promote(target, a, TAG, None, decision=decision(a, None))
    signer = load_signer(make_keys(tmp_path / "keys", "ed25519").private)
    done = promote(target, a, TAG, None, decision=decision(a, None), signer=signer)
    assert not done.changed
    keys = {
        one.descriptor.digest: [signature.key_id for signature in one.signatures]
        for one in find(target, target.resolve(a), PROMOTION)
    }
    assert keys[str(done.statement)] == [signer.key_id]
    again = promote(target, a, TAG, None, decision=decision(a, None), signer=signer)
    assert again.statement == done.statement


def test_a_decision_that_its_statement_does_not_name_is_not_read(target: Layout, a: str, tmp_path: Path) -> None:
    signer = load_signer(make_keys(tmp_path / "keys", "ed25519").private)
    made = attach_decision(target, decision(a, None), signer=signer)
    other = decision(a, None).model_copy(update={"judge_report": "sha256:" + "0" * 64}).to_bytes()
    manifest = json.loads(read(target, made))
    layer = target.push("application/json", other)
    manifest["layers"][1] |= {"digest": layer.digest, "size": layer.size}
    swapped = target.push(MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(VerificationFailed, match=r"decision\.json .* that its statement does not name"):
        read_decision(target, swapped.digest)


def test_a_decision_is_read_from_the_statement_of_its_promotion(target: Layout, a: str) -> None:
    done = promote(target, a, TAG, None, decision=decision(a, None))
    assert read_decision(target, str(done.statement)) == decision(a, None).to_bytes()
