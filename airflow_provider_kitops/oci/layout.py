"""A repository on the local disk: one OCI image layout (image layout specification 1.1) per repository.

Other OCI tools can read it. Content is written to a temporary file, synced and renamed; the index changes the same
way under a file lock, so parallel tasks and a process that is killed at any moment leave whole files only.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from airflow_provider_kitops.oci import _files
from airflow_provider_kitops.oci._index import LayoutIndex, untagged
from airflow_provider_kitops.oci.content import (
    CHUNK,
    Hasher,
    Reopened,
    Verifier,
    VerifyingReader,
    check_descriptor,
    chunks,
    read_small,
)
from airflow_provider_kitops.oci.descriptor import MANIFEST_TYPES, MAX_MANIFEST_SIZE, Descriptor, is_digest
from airflow_provider_kitops.oci.disk import check_room, make_directory, storage_errors
from airflow_provider_kitops.oci.errors import (
    ContentVanished,
    DigestMismatch,
    Interrupted,
    InvalidInput,
    InvalidReference,
    KitopsError,
    NotFound,
    StorageError,
    VerificationFailed,
)
from airflow_provider_kitops.oci.manifest import Links
from airflow_provider_kitops.oci.reference import Reference, check_tag
from airflow_provider_kitops.oci.target import Reader, Source, Target

_MARKER = "oci-layout"
_MARKER_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
# Names of files and directories of a layout: a repository below this one may not take them.
RESERVED_NAMES = frozenset({"blobs", "index.json", _MARKER})
# Seconds to wait for another process to finish a change of the index, which takes milliseconds.
_LOCK_TIMEOUT = 120.0
_LOCK_POLL = 0.5
# Content up to this size, manifests among it, is hashed before it counts as here; larger content by its size alone,
# as reading gigabytes back would cost as much as writing them.
_HASHED = MAX_MANIFEST_SIZE
# What is smaller is fetched anew after a kill.
_WORTH_RESUMING = 16 * 1024 * 1024


class Layout:
    """One repository of the local store: a ``Target``.

    :param root: directory of all repositories; this one is the layout at ``root/<repository>``.
    :param repository: slash-separated lower-case name.
    :raises InvalidReference: the name breaks the grammar, or a part of it is ``blobs``, ``index.json`` or
        ``oci-layout``, which would collide with the files of a layout.
    """

    def __init__(self, root: Path, repository: str) -> None:
        parsed = Reference.parse(repository)
        if parsed.repository != repository:
            raise InvalidReference(f"{repository!r} is no repository of a local layout: it names more than that.")
        taken = RESERVED_NAMES.intersection(repository.split("/"))
        if taken:
            raise InvalidReference(
                f"Repository {repository!r} cannot be kept in a local layout: {min(taken)!r} is a name inside one.",
                hint="Choose another name.",
            )
        self._name = repository
        self.path = Path(root) / repository
        self._swept = False
        self._links: dict[str, Links] = {}
        self._links_lock = threading.Lock()
        # Digests that were seen here: what is missing later was deleted by somebody else.
        self._seen: set[str] = set()
        self._interrupted = threading.Event()

    def __repr__(self) -> str:
        return f"Layout({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The repository."""
        return self._name

    def resolve(self, reference: str) -> Descriptor:
        """The manifest that a tag or digest names.

        :raises NotFound: it names none.
        """
        index = self._index()
        if is_digest(reference):
            found = index.listed(reference) or self._nested(index, reference)
        else:
            found = index.tagged(reference)
        if found is None:
            raise self._missing(reference)
        return Descriptor(found.media_type, found.digest, found.size)

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the content is here: by its digest up to 4 MiB, by its size above. A manifest is listed as well."""
        if not self._intact(descriptor):
            return False
        return not descriptor.is_manifest or self._index().listed(descriptor.digest) is not None

    def fetch(self, descriptor: Descriptor) -> Reader:
        """A verifying stream of the content.

        :raises NotFound: it is not here.
        :raises StorageError: it cannot be read.
        """
        path = self._blob(descriptor.digest)
        with storage_errors("read", path):
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                raise self._missing(descriptor.digest) from None
        return VerifyingReader(_File(file, path), descriptor, self.name)

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        """Store ``source`` and return its descriptor; see ``Target.push``.

        A damaged file is replaced whenever the bytes are read: always with a media type; with a descriptor if what is
        here does not match it, by its digest up to 4 MiB and by its size above. Larger content that is damaged but
        has its size is not noticed then; ``delete`` it first, or push it with its media type.

        :raises DigestMismatch: the bytes are not what the descriptor names.
        :raises NotFound: a manifest names content that is not here.
        :raises ContentVanished: it was here before, and another task has deleted it since.
        :raises StorageError: the disk refuses.
        """
        check_descriptor(content)
        media_type = content if isinstance(content, str) else content.media_type
        if media_type in MANIFEST_TYPES:
            return self._push_manifest(content, source)
        if isinstance(content, str) and isinstance(source, bytes):
            content = Descriptor.of(content, source)
        if isinstance(content, Descriptor) and self._intact(content):
            return content
        self._prepare()
        return self._write(content, source)

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Make ``tag`` name this manifest.

        :raises NotFound: the manifest is not here.
        :raises ContentVanished: it was here before, and another task has deleted it since.
        :raises InvalidReference: ``tag`` is malformed.
        """
        check_tag(tag)
        try:
            known = self.resolve(descriptor.digest)
        except NotFound:
            raise self._gone(descriptor.digest) from None

        def change(index: LayoutIndex) -> LayoutIndex:
            current = index.tagged(tag)
            if current is not None and current.digest == known.digest:
                return index
            if not self._has(known):
                raise self._gone(known.digest)
            return index.with_tag(index.listed(known.digest) or self._described(known), tag)

        self._change(change)

    def untag(self, tag: str) -> None:
        """Remove a tag and leave the manifest.

        :raises NotFound: there is no such tag.
        """

        def change(index: LayoutIndex) -> LayoutIndex:
            if index.tagged(tag) is None:
                raise self._missing(tag)
            return index.without_tag(tag)

        if self._index().tagged(tag) is None:
            raise self._missing(tag)
        self._change(change)

    def tags(self) -> list[str]:
        """All tags, sorted; empty for a repository that does not exist."""
        return self._index().tags()

    def manifests(self) -> list[Descriptor]:
        """All manifests, tagged or not, each once."""
        return list(self._index().manifests())

    def referrers(self, descriptor: Descriptor, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose ``subject`` is this one, each with its artifact type and annotations."""
        found = []
        for entry in self._index().manifests():
            links = self._links_of(entry)
            if links is None or links.subject is None or links.subject.digest != descriptor.digest:
                continue
            if artifact_type is None or links.artifact_type == artifact_type:
                described = Descriptor(
                    entry.media_type, entry.digest, entry.size, links.annotations or {}, links.artifact_type
                )
                found.append(described)
        return found

    def delete(self, descriptor: Descriptor) -> None:
        """Delete a manifest with all its tags and the blobs that no other manifest here needs, or a blob.

        :raises NotFound: it is not here.
        """
        if not descriptor.is_manifest:
            if not self._has(descriptor):
                raise self._missing(descriptor.digest)
            self._unlink(descriptor.digest)
            return
        # One that is damaged, or whose file is gone, may be deleted too: that it is listed is enough.
        links = self._links_of(descriptor)

        def change(index: LayoutIndex) -> LayoutIndex:
            if index.listed(descriptor.digest) is None:
                raise self._missing(descriptor.digest)
            return index.without_manifest(descriptor.digest)

        def clean(index: LayoutIndex) -> None:
            needed = set()
            for entry in index.manifests():
                other = self._links_of(entry)
                needed.add(entry.digest)
                if other is not None:
                    needed.update(part.digest for part in (*other.blobs, *other.manifests))
            # The manifest before its blobs: killed in between, there is none that could be listed and lacks some.
            for digest in (descriptor.digest, *(blob.digest for blob in (links.blobs if links else ()))):
                if digest not in needed:
                    self._unlink(digest)

        # The index first: killed in between, some blobs are left over, but nothing that is listed is missing.
        self._change(change, clean)

    def mount(self, descriptor: Descriptor, source: Target) -> bool:
        """Take a blob from another layout on the same disk by a hard link, without copying a byte.

        :return: False if that cannot be done; nothing has changed then.
        :raises StorageError: the disk refuses.
        """
        if not isinstance(source, Layout) or descriptor.is_manifest or not source._intact(descriptor):
            return False
        self._prepare()
        # A damaged file may be in the way of the link; it is left to push to replace it.
        return _files.link(source._blob(descriptor.digest), self._blob(descriptor.digest)) and self._intact(descriptor)

    def _push_manifest(self, content: Descriptor | str, source: Source) -> Descriptor:
        if isinstance(content, Descriptor) and self.exists(content):
            return content
        data = read_small(source, f"A manifest for {self.name}")
        media_type = content if isinstance(content, str) else content.media_type
        links = Links.parse(media_type, data)
        found = Descriptor.of(media_type, data)
        if isinstance(content, Descriptor) and content.digest != found.digest:
            verifier = Verifier(content, self.name)  # also for digests of another algorithm than the usual
            verifier.update(data)
            verifier.finish()
            found = Descriptor(media_type, content.digest, len(data))
        elif isinstance(content, Descriptor) and content.size != found.size:
            raise DigestMismatch(f"The manifest {found.digest} has {found.size} bytes, not {content.size}.")
        self._prepare()
        if not self._intact(found):
            self._write(found, data)
        entry = _listing(found, links)

        def change(index: LayoutIndex) -> LayoutIndex:
            # Under the lock, as somebody may have deleted a manifest that shared blobs with this one.
            for part in (*links.blobs, *links.manifests):
                if self._has(part):
                    continue
                message = f"Manifest {found.digest} names {part.digest}, which is not in {self.name}"
                if part.digest in self._seen:
                    raise ContentVanished(
                        f"{message} any longer.", hint="Another task deleted it meanwhile: try again."
                    )
                raise NotFound(f"{message}.", hint="Push the blobs before the manifest.")
            if not self._has(found):
                self._write(found, data)
            return index.with_manifest(entry)

        self._change(change)
        return found

    def check_room(self, blobs: Sequence[Descriptor]) -> None:
        """Notice a full disk before hours of transfer.

        :param blobs: what is about to be stored; what is here already does not count.
        :raises StorageError: the disk has less space left than that.
        """
        needed = sum(blob.size for blob in blobs if not self._has(blob))
        check_room(self.path, needed - _files.partial_bytes(self._ingest), "stored")

    def interrupt(self) -> None:
        """End the waiting of other threads for what another process is downloading."""
        self._interrupted.set()

    def resume(self) -> None:
        """Let that be waited for again."""
        self._interrupted.clear()

    def _download(self, content: Descriptor, source: Reopened) -> None:
        """Take up what an earlier try has left; one process at a time, the others find it here when it is done."""
        with _files.Partial(self._ingest, self._blob(content.digest), self._interrupted) as file:
            if self._intact(content):  # whoever had it before has finished it
                return
            for resumed in (True, False):
                if not resumed or file.size > content.size:
                    file.empty()
                verifier = Verifier(content, self.name)
                offset = file.size
                for chunk in file.chunks():
                    verifier.update(chunk)
                try:
                    for chunk in source.at(offset):
                        verifier.update(chunk)
                        file.write(chunk)
                    verifier.finish()
                    break
                except DigestMismatch:
                    # What was left may be damaged, as by a loss of power; what has just come may not.
                    file.empty()
                    if not offset:
                        raise
            file.keep(self._blob(content.digest))

    def _write(self, content: Descriptor | str, source: Source) -> Descriptor:
        if isinstance(content, Descriptor) and content.size >= _WORTH_RESUMING and isinstance(source, Reopened):
            with contextlib.suppress(_files.OfAnotherUser):  # then it is fetched anew, beside the other's
                self._download(content, source)
                self._seen.add(content.digest)
                return content
        shown = self.path if isinstance(content, str) else self._blob(content.digest)
        verifier = Verifier(content, self.name) if isinstance(content, Descriptor) else None
        digest = Hasher("sha256")
        size = 0
        with _files.Temporary(self._ingest, shown) as file:
            for chunk in chunks(source):
                if verifier is not None:
                    verifier.update(chunk)
                else:
                    digest.update(chunk)
                    size += len(chunk)
                file.write(chunk)
            if verifier is not None:
                verifier.finish()
            if isinstance(content, str):
                content = Descriptor(content, f"sha256:{digest.hexdigest()}", size)
            # Even if it is here already: these bytes are verified, and those need not be.
            file.keep(self._blob(content.digest))
        self._seen.add(content.digest)
        return content

    def _prepare(self) -> None:
        if not (self.path / _MARKER).exists():
            make_directory(self.path)
            _files.replace_file(self.path / _MARKER, _MARKER_CONTENT, self._ingest)
        if not (self.path / "index.json").exists():
            self._change(lambda index: index)
        if not self._swept:
            _files.sweep(self._ingest)
            self._swept = True

    def _index(self) -> LayoutIndex:
        path = self.path / "index.json"
        with storage_errors("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return LayoutIndex()
        return LayoutIndex.parse(data, path)

    def _change(
        self, change: Callable[[LayoutIndex], LayoutIndex], then: Callable[[LayoutIndex], None] | None = None
    ) -> None:
        path = self.path / "index.json"
        with self._locked():
            before = self._index()
            after = change(before)
            if after != before or not path.exists() or _entries_differ(after, before):
                _files.replace_file(path, after.to_bytes(), self._ingest)
            if then is not None:
                then(after)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path / ".lock")
        until = time.monotonic() + _LOCK_TIMEOUT
        while not lock.is_locked:
            with storage_errors("lock", self.path), contextlib.suppress(Timeout):
                lock.acquire(timeout=_LOCK_POLL)
                break
            if self._interrupted.is_set():
                raise Interrupted(f"The wait for the lock of {self.path} was interrupted.")
            if time.monotonic() > until:
                raise StorageError(
                    f"Cannot change {self.path}: another process has held its lock for {_LOCK_TIMEOUT:.0f} seconds.",
                    hint="See which process that is (fuser) and whether it hangs.",
                )
        try:
            yield
        finally:
            lock.release()

    @property
    def _ingest(self) -> Path:
        # A repository's name cannot begin with a dot, so this collides with none.
        return self.path / ".ingest"

    def _blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded

    def _has(self, descriptor: Descriptor) -> bool:
        path = self._blob(descriptor.digest)
        with storage_errors("read", path):
            try:
                whole = path.stat().st_size == descriptor.size
            except FileNotFoundError:
                return False
        if whole:
            self._seen.add(descriptor.digest)
        return whole

    def _intact(self, descriptor: Descriptor) -> bool:
        """Whether the content is here and, if it is small, has its digest."""
        if not self._has(descriptor):
            return False
        if descriptor.size > _HASHED:
            return True
        try:
            with self.fetch(descriptor) as reader:
                reader.read()
        except (DigestMismatch, NotFound):
            return False
        return True

    def _unlink(self, digest: str) -> None:
        path = self._blob(digest)
        with storage_errors("remove", path):
            path.unlink(missing_ok=True)
        self._seen.discard(digest)

    def _missing(self, what: str) -> NotFound:
        known = self.tags()
        if not known and not (self.path / "index.json").exists():
            where = f"It would be {self.path}."
            return NotFound(f"There is no repository {self.name} in the local layout.", hint=where)
        hint = ""
        if known and not is_digest(what):
            hint = f"It has the tags {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
        return NotFound(f"There is no {what} in {self.name}.", hint=hint)

    def _gone(self, digest: str) -> KitopsError:
        """The error for a manifest that is not here: another task may have deleted what we have seen."""
        if digest not in self._seen:
            return self._missing(digest)
        return ContentVanished(
            f"{digest} is not in {self.name} any longer.", hint="Another task deleted it meanwhile: try again."
        )

    def _nested(self, index: LayoutIndex, digest: str) -> Descriptor | None:
        # Other tools list only the top of a tree of indexes.
        for entry in index.manifests():
            links = self._links_of(entry)
            for part in links.manifests if links else ():
                if part.digest == digest and self._has(part):
                    return part
        return None

    def _described(self, descriptor: Descriptor) -> Descriptor:
        links = self._links_of(descriptor)
        return _listing(descriptor, links) if links else descriptor

    def _links_of(self, descriptor: Descriptor) -> Links | None:
        """What a manifest says; None if it is not here or not one, as may be in a layout of another tool."""
        with self._links_lock:
            known = self._links.get(descriptor.digest)
        if known is not None or not descriptor.is_manifest or descriptor.size > MAX_MANIFEST_SIZE:
            return known
        try:
            with self.fetch(descriptor) as reader:
                data = b"".join(iter(lambda: reader.read(CHUNK), b""))
            links = Links.parse(descriptor.media_type, data)
        except (NotFound, InvalidInput, VerificationFailed):
            return None
        with self._links_lock:
            self._links[descriptor.digest] = links
        return links


class _File:
    """An open file whose read errors name its path."""

    def __init__(self, file: FileIO, path: Path) -> None:
        self._file = file
        self._path = path

    def read(self, size: int = -1, /) -> bytes:
        with storage_errors("read", self._path):
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def _listing(descriptor: Descriptor, links: Links) -> Descriptor:
    # Artifact type and annotations are in the index so that whoever lists referrers need not open every manifest.
    described = Descriptor(
        descriptor.media_type, descriptor.digest, descriptor.size, links.annotations or {}, links.artifact_type
    )
    return untagged(described)


def _entries_differ(one: LayoutIndex, other: LayoutIndex) -> bool:
    # Descriptors compare without annotations, and tags are annotations.
    return [entry.to_json() for entry in one.entries] != [entry.to_json() for entry in other.entries]
