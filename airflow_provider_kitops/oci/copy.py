"""Moving an artifact between any two repositories: push, pull, mirror and import are all this.

Bytes of manifests are never changed. Content goes before what names it, so whatever interrupts a copy, what the
destination lists is whole.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from airflow_provider_kitops.oci.content import Reopened, read
from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.manifest import Links
from airflow_provider_kitops.oci.parallel import Stop, run_all
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, apply_tags, tags_to_set
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Tags, Target

# No real index or chain of referrers comes near it; a forged one shall not keep us busy for ever.
_MOST_MANIFESTS = 10_000
# Bytes of all of them together, which are kept until the end.
_MAX_MANIFESTS = 32 * 1024 * 1024

_Action = Literal["move", "skip", "mount"]


@runtime_checkable
class Mounts(Protocol):
    """A target that can take a blob from a sibling without moving its bytes."""

    def mount(self, descriptor: Descriptor, source: Target) -> bool: ...


@dataclass(frozen=True)
class CopyResult:
    """What a copy did.

    :param descriptor: the manifest that was copied.
    :param copied: bytes that were moved, manifests included.
    :param skipped: bytes that were there already.
    :param mounted: bytes that the destination took from a sibling by itself.
    """

    descriptor: Descriptor
    copied: int
    skipped: int
    mounted: int


@dataclass
class _Plan:
    """Blobs in any order, manifests in the order in which they may be pushed."""

    blobs: dict[str, Descriptor] = field(default_factory=dict)
    manifests: dict[str, tuple[Descriptor, bytes, Links]] = field(default_factory=dict)


def copy(
    source: Target,
    source_reference: str,
    destination: Target,
    destination_tags: Tags = None,
    *,
    referrers: bool = False,
    concurrency: int = 5,
    mutable_tags: Sequence[str] = DEFAULT_MUTABLE_TAGS,
    on_progress: ProgressHook | None = None,
) -> CopyResult:
    """Copy a manifest, or an index with all that it lists, and then tag it.

    :param source: where it is.
    :param source_reference: its tag or digest there.
    :param destination: where it goes; what is there already is not sent.
    :param destination_tags: tags to set once everything is there.
    :param referrers: copy what refers to it too (signatures, attestations), and what refers to that.
    :param concurrency: blobs at a time.
    :param mutable_tags: patterns of the tags that may move from another manifest.
    :param on_progress: called as bytes move.
    :raises NotFound: the source has no such manifest, or lacks content that it names.
    :raises Conflict: a tag that may not move names another manifest; nothing was sent then.
    :raises DigestMismatch: content in the source is damaged.
    :raises StorageError: the disk of a local layout has no room for it; nothing was sent then.
    :raises InvalidInput: ``source_reference`` is empty, or ``concurrency`` is not positive.
    """
    if not source_reference:
        raise InvalidInput(f"Nothing of {source.name} is named.", hint="Give a tag or a digest.")
    if concurrency < 1:
        raise InvalidInput(f"Cannot copy {concurrency} blobs at a time.")
    descriptor = source.resolve(source_reference)
    tags_to_set(destination, descriptor, destination_tags, mutable=mutable_tags)
    plan = _plan(source, descriptor, referrers=referrers)
    tally = _Tally(on_progress, "download" if isinstance(destination, Layout) else "upload")
    if isinstance(destination, Layout):
        destination.check_room(list(plan.blobs.values()))
    for blob in plan.blobs.values():
        tally.report("move", blob, 0)  # so that the whole is known from the beginning
    jobs = [functools.partial(_copy_blob, source, destination, blob, tally) for blob in plan.blobs.values()]
    run_all(jobs, concurrency, (source, destination))
    for manifest, data, links in plan.manifests.values():
        # A manifest with a subject is pushed even if it is there: whoever pushed it may not have come to list it.
        if links.subject is None and destination.exists(manifest):
            tally.add("skip", manifest)
        else:
            destination.push(manifest, data)
            tally.add("move", manifest)
    apply_tags(destination, descriptor, destination_tags, mutable=mutable_tags)
    return CopyResult(descriptor, tally.copied, tally.skipped, tally.mounted)


def _plan(source: Target, root: Descriptor, *, referrers: bool) -> _Plan:
    plan = _Plan()
    size = 0

    def visit(manifest: Descriptor, depth: int) -> None:
        if manifest.digest in plan.manifests:
            return
        nonlocal size
        size += manifest.size
        if len(plan.manifests) >= _MOST_MANIFESTS or size > _MAX_MANIFESTS or depth > 32:
            raise LimitExceeded(f"{root.digest} in {source.name} leads to more manifests than a copy follows.")
        data = read(source, manifest)
        links = Links.parse(manifest.media_type, data)
        for part in (*links.manifests, *links.blobs):
            if part.is_manifest:
                visit(part, depth + 1)
            else:
                plan.blobs[part.digest] = part
        # After its parts, so that a registry finds all of them when it checks the manifest.
        plan.manifests[manifest.digest] = (manifest, data, links)
        if referrers:
            for referrer in source.referrers(manifest):
                visit(referrer, depth + 1)

    visit(root, 0)
    return plan


def _copy_blob(source: Target, destination: Target, blob: Descriptor, tally: _Tally, stop: Stop) -> None:
    if destination.exists(blob):
        tally.add("skip", blob)
        return
    if isinstance(destination, Mounts) and destination.mount(blob, source):
        tally.add("mount", blob)
        return

    def moved(done: int) -> None:
        stop.check()
        tally.report("move", blob, done)

    content = Reopened(source, blob, moved)
    destination.push(blob, content)
    # The rest was there from an earlier try, or somebody else has brought it meanwhile.
    tally.add("move", blob, content.moved)


class _Tally:
    """Counts bytes from several threads, and tells the hook.

    :param move: what moving bytes is called.
    """

    def __init__(self, on_progress: ProgressHook | None, move: Literal["upload", "download"]) -> None:
        self._hook: Callable[[Progress], None] = on_progress or (lambda step: None)
        self._move = move
        self._lock = threading.Lock()
        self.copied = self.skipped = self.mounted = 0

    def add(self, action: _Action, content: Descriptor, moved: int | None = None) -> None:
        """Count content as done, and report that unless its bytes have been reported one by one.

        :param moved: how many of them were moved; the others were there. None = all, of what is moved at all.
        """
        share = content.size if moved is None else moved
        with self._lock:
            self.copied += share if action == "move" else 0
            self.skipped += content.size if action == "skip" else content.size - share
            self.mounted += content.size if action == "mount" else 0
        if not moved:
            self.report(action, content, content.size)

    def report(self, action: _Action, content: Descriptor, done: int) -> None:
        """Tell the hook how many bytes of content are done."""
        # The first digits tell contents apart, and fit on a line.
        self._hook(Progress(self._move if action == "move" else action, content.digest[:19], done, content.size))
