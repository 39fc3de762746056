"""Hashing beside other work gives the digest that hashing at once gives."""

from __future__ import annotations

import gc
import hashlib
import random
import threading

import pytest

from airflow_provider_kitops.oci import content
from airflow_provider_kitops.oci.content import Hasher


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_give_the_digest_of_the_whole(
    algorithm: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_WORTH_A_THREAD", 100_000)
    chance = random.Random(seed)
    hashing, whole = Hasher(f"{algorithm}:abc"), hashlib.new(algorithm)
    for _ in range(50):
        piece = chance.randbytes(chance.choice([0, 1, 1000, 50_000]))
        hashing.update(piece)
        whole.update(piece)
        if chance.random() < 0.1:
            assert hashing.hexdigest() == whole.hexdigest()
    assert (hashing.name, hashing.hexdigest()) == (algorithm, whole.hexdigest())


def test_a_hash_that_is_given_up_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_WORTH_A_THREAD", 0)
    hashing = Hasher("sha256")
    hashing.update(b"x" * 1_000_000)
    hashing.update(b"x" * 1_000_000)
    [thread] = [each for each in threading.enumerate() if each.name.startswith("hash")]
    del hashing
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
