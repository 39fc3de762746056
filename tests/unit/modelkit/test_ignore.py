"""``.kitignore`` follows the rules of ``.dockerignore``."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kitops.modelkit import ignore
from airflow_provider_kitops.modelkit.ignore import IgnoreRules, read_patterns, read_rules
from airflow_provider_kitops.oci.errors import InvalidInput


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("*", "x/y", True),
        ("**foo", "xfoo", True),
        ("**foo", "a/b/xfoo", True),
        ("**/foo", "foo", True),
        ("**/foo", "a/foo", True),
        ("**/foo", "xfoo", False),
        ("foo/**", "foo", False),
        ("foo/**", "foo/a/b", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "az", False),
        ("**", "anything/at/all", True),
        ("**/*.md", "notes.md", True),
        ("**/*.md", "d/e/notes.md", True),
        ("[!a]", "b", False),
        ("[!a]", "!", True),
        ("[!a]", "a", True),
        ("[^a]", "b", True),
        ("[^a]", "a", False),
        ("a[0-9]", "a7", True),
        ("a[0-9]", "ab", False),
        ("tmp?", "tmp1", True),
        ("tmp?", "tmp22", False),
        ("a?b", "a/b", False),
        (r"\*", "*", True),
        (r"\*", "x", False),
        ("a.b", "axb", False),
        ("d", "d/e/f", True),
        ("d/", "d/e", True),
    ],
)
def test_one_pattern(pattern: str, path: str, ignored: bool) -> None:
    assert IgnoreRules(read_patterns(pattern)).matches(path) is ignored


def test_the_last_match_wins_and_exceptions_reach_below() -> None:
    rules = IgnoreRules(["d", "!d/k"])
    assert rules.has_exceptions
    assert rules.matches("d/x")
    assert not rules.matches("d/k/z")
    assert IgnoreRules(["d", "!d/k", "d/k/z"]).matches("d/k/z")


def test_lines_are_trimmed_and_anchored_at_the_context() -> None:
    assert read_patterns("# c\n #notcomment\n\n  /a/../b  \n! /x/ \r\n") == ["#notcomment", "b", "!x"]


def test_wildcards_in_a_row_take_no_longer_than_one() -> None:
    before = time.process_time()
    assert not IgnoreRules(["**********x**********"]).matches("/" * 94)
    assert not IgnoreRules(["*" * 40 + "x", "[*][*]y"]).matches("a" * 5000)
    assert IgnoreRules(["[*][*]y"]).matches("**y")
    for pattern in ("**/*a*a*a*a*a*a*a*ab", "d/?*?*?*?*?*?*?*?*b", "d/[a]*[a]*[a]*[a]*[a]*[a]*[a]*b"):
        assert not IgnoreRules([pattern]).matches("a" * 200)
        assert not IgnoreRules([pattern]).matches("d/" + "a" * 200)
    assert time.process_time() - before < 1


@pytest.mark.parametrize("pattern", ["[", "[]", "a[", "[a-", "a\\", "!", "[z-a]"])
def test_a_malformed_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(InvalidInput, match=r"\.kitignore"):
        IgnoreRules([pattern])


def test_kitfiles_at_the_root_cannot_be_taken_back_in(tmp_path: Path) -> None:
    (tmp_path / ".kitignore").write_bytes(b"\xef\xbb\xbf*.tmp\n!Kitfile\n")
    rules = read_rules(tmp_path)
    assert rules.matches("Kitfile")
    assert rules.matches(".kitignore")
    assert rules.matches("a.tmp")
    assert not rules.matches("sub/Kitfile")


pieces = st.sampled_from(["a", "b", "*", "*", "?", "/", "**", "[ab]", "[^a]", "[+-9]"])


@given(st.lists(pieces, min_size=1, max_size=9).map("".join), st.text("aab/", min_size=1, max_size=9))
@example("*[^a]*", "ab/a")
def test_what_makes_matching_quick_changes_nothing(pattern: str, path: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ignore, "_quick", "".join)
        plain = ignore._expression(pattern)
    assert bool(re.fullmatch(ignore._expression(pattern), path)) == bool(re.fullmatch(plain, path))
