"""Copy an artifact between any two targets without changing a byte of it: push, pull, mirror and import are this."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from airflow_provider_kitops.oci.descriptor import Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, apply_tags, check_tags
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Tags, Target
from airflow_provider_kitops.oci.verify import read_manifest

_CHUNK = 1 << 20


@dataclass(frozen=True)
class CopyResult:
    """What a copy did.

    :param descriptor: the manifest, the same at both ends.
    :param copied: bytes that were transferred.
    :param skipped: bytes that were there already.
    :param mounted: bytes that the destination took over from a neighbouring repository by itself.
    """

    descriptor: Descriptor
    copied: int
    skipped: int
    mounted: int


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
    """Copy what ``source_reference`` names, blobs first and tags last, so a tag never names half an artifact.

    :param source_reference: tag or digest in ``source``.
    :param destination_tags: tags to set in ``destination``; none sets none.
    :param referrers: copy what refers to the artifact too (signatures, attestations), and what refers to those.
    :param concurrency: blobs at once.
    :param mutable_tags: patterns of the tags that may leave another digest.
    :param on_progress: called with every chunk, from several threads.
    :raises NotFound: there is no such artifact, or a part of it is missing.
    :raises Conflict: a tag must not move; nothing has been copied then.
    """
    root = source.resolve(source_reference)
    check_tags(destination, root.digest, destination_tags, mutable=mutable_tags)
    run = _Copy(source, destination, on_progress)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="copy") as pool:
        run.tree(root, pool, referrers=referrers)
    apply_tags(destination, root, destination_tags, mutable=mutable_tags)
    return CopyResult(root, run.copied, run.skipped, run.mounted)


def children(raw: bytes) -> tuple[list[Descriptor], list[Descriptor]]:
    """The manifests and the blobs that a manifest or index names, each once.

    :raises InvalidInput: malformed.
    """
    try:
        fields = json.loads(raw)
        listed = [*(fields.get("manifests") or ()), *(fields.get("layers") or ())]
        if fields.get("config"):
            listed.append(fields["config"])
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"Malformed manifest: {error}.") from error
    found = {each.digest: each for each in map(Descriptor.from_json, listed)}.values()
    return [each for each in found if each.is_manifest], [each for each in found if not each.is_manifest]


class _Copy:
    def __init__(self, source: Target, destination: Target, on_progress: ProgressHook | None) -> None:
        self._source = source
        self._destination = destination
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self.copied = self.skipped = self.mounted = 0

    def tree(self, manifest: Descriptor, pool: ThreadPoolExecutor, *, referrers: bool) -> None:
        """Everything below ``manifest``, then itself, then what refers to it."""
        if manifest.digest in self._seen:
            return
        self._seen.add(manifest.digest)
        raw = read_manifest(self._source, manifest)
        manifests, blobs = children(raw)
        for child in manifests:
            self.tree(child, pool, referrers=referrers)
        missing = [blob for blob in blobs if blob.digest not in self._seen]
        self._seen.update(blob.digest for blob in missing)
        _all(pool, self._blob, missing)
        self._destination.push(manifest, raw)
        if referrers:
            for referrer in self._source.referrers(manifest):
                self.tree(referrer, pool, referrers=True)

    def _blob(self, blob: Descriptor) -> None:
        name = blob.digest.partition(":")[2][:12]
        if self._destination.exists(blob):
            self._count("skipped", blob.size)
            self._report(Progress("skip", name, blob.size, blob.size))
        elif self._mount(blob):
            self._count("mounted", blob.size)
            self._report(Progress("mount", name, blob.size, blob.size))
        else:
            self._destination.push(blob, lambda: self._chunks(blob, name))
            self._count("copied", blob.size)

    def _mount(self, blob: Descriptor) -> bool:
        source, destination = self._source, self._destination
        if isinstance(source, Layout) and isinstance(destination, Layout):
            return destination.link(source, blob)
        mount = getattr(destination, "mount", None)
        return mount is not None and not isinstance(source, Layout) and bool(mount(source, blob))

    def _chunks(self, blob: Descriptor, name: str) -> Iterator[bytes]:
        done = 0
        with self._source.fetch(blob) as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk
                done += len(chunk)
                self._report(Progress("upload", name, done, blob.size))

    def _count(self, what: str, size: int) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + size)

    def _report(self, progress: Progress) -> None:
        if self._on_progress:
            self._on_progress(progress)


def _all(pool: ThreadPoolExecutor, work: Any, blobs: Iterable[Descriptor]) -> None:
    """Run ``work`` on every blob; the first failure cancels what has not begun."""
    futures = [pool.submit(work, blob) for blob in blobs]
    try:
        for future in futures:
            future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise
