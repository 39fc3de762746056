"""The local store: one plain OCI image layout per repository (OCI image specification 1.1, image-layout.md).

Every write is a temporary file, fsync and rename, and ``index.json`` changes only under a file lock. So parallel tasks
can share a layout, a process may be killed at any moment, and other OCI tools can read what is here.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from airflow_provider_kitops.oci.descriptor import INDEX, Descriptor, is_digest
from airflow_provider_kitops.oci.errors import (
    DigestMismatch,
    InvalidInput,
    InvalidReference,
    NotFound,
    StorageError,
)
from airflow_provider_kitops.oci.reference import is_tag
from airflow_provider_kitops.oci.target import Source
from airflow_provider_kitops.oci.verify import VerifyingReader, read_manifest

#: Names inside a layout, which a repository below another one must not have.
RESERVED = frozenset({"blobs", "index.json", "oci-layout"})

_TAG = "org.opencontainers.image.ref.name"
_SECONDS_UNTIL_STALE = 24 * 3600


class Layout:
    """A repository in a local directory.

    :param root: directory that holds all repositories.
    :param repository: name of this one; its layout is ``root/repository``.
    :raises InvalidReference: a part of the name is one that layouts use themselves.
    """

    def __init__(self, root: Path, repository: str) -> None:
        if taken := RESERVED & set(repository.split("/")):
            raise InvalidReference(
                f"{repository!r} cannot be stored in a local layout: {', '.join(sorted(taken))} has a meaning there.",
                hint="Choose another repository name.",
            )
        self.root = root
        self.repository = repository
        self.path = root / repository
        self._ingest = self.path / ".ingest"
        self._referrers: dict[str, tuple[str, Descriptor] | None] = {}

    @property
    def name(self) -> str:
        """The repository."""
        return self.repository

    def __repr__(self) -> str:
        return f"Layout({str(self.root)!r}, {self.repository!r})"

    def resolve(self, reference: str) -> Descriptor:
        """The manifest that a tag or digest names.

        :raises NotFound: there is none.
        """
        for descriptor, tag in self._entries():
            if reference in (tag, descriptor.digest):
                return descriptor
        kind = "manifest" if is_digest(reference) else "tag"
        raise NotFound(f"There is no {kind} {reference} in {self.name} in the local layout {self.root}.")

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the content is here; a manifest must also be listed."""
        if descriptor.is_manifest:
            return any(each.digest == descriptor.digest for each, _ in self._entries())
        return self._blob(descriptor.digest).is_file()

    def fetch(self, descriptor: Descriptor) -> VerifyingReader:
        """A verifying stream of the content.

        :raises NotFound: it is not here.
        """
        try:
            stream = self._blob(descriptor.digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"{descriptor.digest} is not in {self.name} in the local layout {self.root}.") from None
        except OSError as error:
            raise _storage_error("read", self._blob(descriptor.digest), error) from error
        return VerifyingReader(stream, descriptor, self.name)

    def push(self, content: Descriptor | str, source: Source) -> Descriptor:
        """Store ``source``; see ``Target.push``.

        :raises DigestMismatch: the bytes are not the descriptor's.
        :raises StorageError: the disk is full or not writable; nothing is left of the attempt.
        """
        if isinstance(content, Descriptor) and self._blob(content.digest).is_file():
            descriptor = content
        else:
            algorithm = content.digest.partition(":")[0] if isinstance(content, Descriptor) else "sha256"
            chunks: Iterable[bytes] = (source,) if isinstance(source, bytes) else source()
            with self._storing("write"), self._temporary(self._ingest) as (temporary, file):
                digest, size = _write(file, chunks, algorithm)
                if isinstance(content, Descriptor):
                    descriptor = content
                    if (digest, size) != (content.digest, content.size):
                        raise DigestMismatch(
                            f"What was to be stored as {content.digest} ({content.size} bytes)"
                            f" in {self.name} is {digest} ({size} bytes).",
                            hint="The source is damaged or has changed.",
                        )
                else:
                    descriptor = Descriptor(content, digest, size)
                self._adopt(temporary, self._blob(digest))
        if descriptor.is_manifest:
            self._list(descriptor)
        return descriptor

    def link(self, other: Layout, descriptor: Descriptor) -> bool:
        """Take a blob over from another repository on the same file system without copying its bytes.

        :return: whether it is here now.
        """
        target = self._blob(descriptor.digest)
        if target.is_file():
            return True
        with self._storing("write"):
            self._ingest.mkdir(parents=True, exist_ok=True)
            temporary = self._ingest / secrets.token_hex(8)
            try:
                os.link(other._blob(descriptor.digest), temporary)
            except OSError:
                return False  # not there, or on another file system: the caller copies
            self._adopt(temporary, target)
        return True

    def tag(self, descriptor: Descriptor, tag: str) -> None:
        """Make ``tag`` name this manifest.

        :raises NotFound: the manifest is not here.
        :raises InvalidReference: malformed tag.
        """
        if not is_tag(tag):
            raise InvalidReference(f"Malformed tag {tag!r} for {self.name}.")

        def change(manifests: list[dict[str, Any]]) -> None:
            listed = next((each for each in manifests if each["digest"] == descriptor.digest), None)
            if listed is None:
                raise NotFound(f"There is no manifest {descriptor.digest} in {self.name} to tag {tag}.")
            _take_tag_off(manifests, tag)
            plain = _untagged(listed)
            manifests.append({**plain, "annotations": {**plain.get("annotations", {}), _TAG: tag}})
            # With a tagged entry, the untagged one says nothing more.
            manifests[:] = [
                each
                for each in manifests
                if each["digest"] != descriptor.digest or _TAG in (each.get("annotations") or {})
            ]

        self._change(change)

    def untag(self, tag: str) -> None:
        """Remove a tag and leave the manifest.

        :raises NotFound: no such tag.
        """

        def change(manifests: list[dict[str, Any]]) -> None:
            if not _take_tag_off(manifests, tag):
                raise NotFound(f"There is no tag {tag} in {self.name} in the local layout {self.root}.")

        self._change(change)

    def tags(self) -> list[str]:
        """All tags, sorted."""
        return sorted(tag for _, tag in self._entries() if tag)

    def referrers(self, descriptor: Descriptor, artifact_type: str | None = None) -> list[Descriptor]:
        """Manifests whose ``subject`` is this one (distribution specification 1.1, "Listing Referrers")."""
        found = {}
        for entry, _ in self._entries():
            referrer = self._referrer(entry)
            if referrer and referrer[0] == descriptor.digest and artifact_type in (None, referrer[1].artifact_type):
                found[entry.digest] = referrer[1]
        return list(found.values())

    def delete(self, descriptor: Descriptor) -> None:
        """Delete a manifest with all its tags, or a blob.

        :raises NotFound: it is not here.
        """
        if descriptor.is_manifest:

            def change(manifests: list[dict[str, Any]]) -> None:
                kept = [each for each in manifests if each["digest"] != descriptor.digest]
                if len(kept) == len(manifests):
                    raise NotFound(f"There is no manifest {descriptor.digest} in {self.name}.")
                manifests[:] = kept

            self._change(change)
        with self._storing("delete"):
            try:
                self._blob(descriptor.digest).unlink()
            except FileNotFoundError:
                if not descriptor.is_manifest:
                    raise NotFound(f"{descriptor.digest} is not in {self.name}.") from None

    # -- index.json ---------------------------------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[Descriptor, str]]:
        for entry in self._read_index():
            yield Descriptor.from_json(_untagged(entry)), (entry.get("annotations") or {}).get(_TAG, "")

    def _read_index(self) -> list[dict[str, Any]]:
        path = self.path / "index.json"
        try:
            manifests = json.loads(path.read_bytes())["manifests"]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _storage_error("read", path, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{path} is no index of an OCI image layout: {error!r}.") from error
        if not isinstance(manifests, list):
            raise InvalidInput(f"{path} is no index of an OCI image layout: its manifests are no list.")
        return manifests

    def _change(self, change: Callable[[list[dict[str, Any]]], None]) -> None:
        """Read, change and replace ``index.json`` as one step; nothing is written if nothing changes."""
        with self._storing("write"):
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / ".lock"):
                before = self._read_index()
                manifests = [dict(entry) for entry in before]
                change(manifests)
                marker = self.path / "oci-layout"
                if not marker.exists():
                    self._replace(marker, b'{"imageLayoutVersion":"1.0.0"}')
                if manifests != before or not (self.path / "index.json").exists():
                    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
                    self._replace(self.path / "index.json", json.dumps(index, separators=(",", ":")).encode())

    def _list(self, descriptor: Descriptor) -> None:
        fields = json.loads(read_manifest(self, descriptor))
        artifact_type = fields.get("artifactType") or (fields.get("config") or {}).get("mediaType")

        def change(manifests: list[dict[str, Any]]) -> None:
            if all(each["digest"] != descriptor.digest for each in manifests):
                entry = Descriptor(
                    descriptor.media_type, descriptor.digest, descriptor.size, artifact_type=artifact_type
                )
                manifests.append(entry.to_json())

        self._change(change)

    def _referrer(self, entry: Descriptor) -> tuple[str, Descriptor] | None:
        """Digest of the entry's subject, and the entry as a referrers listing shows it; None without a subject."""
        if entry.digest not in self._referrers:
            fields = json.loads(read_manifest(self, entry))
            subject = (fields.get("subject") or {}).get("digest")
            artifact_type = fields.get("artifactType") or (fields.get("config") or {}).get("mediaType")
            shown = Descriptor(
                entry.media_type, entry.digest, entry.size, fields.get("annotations") or {}, artifact_type
            )
            # Content never changes under its digest, so what was read once stays true.
            self._referrers[entry.digest] = (subject, shown) if subject else None
        return self._referrers[entry.digest]

    # -- files --------------------------------------------------------------------------------------------------

    def _blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded

    @contextmanager
    def _temporary(self, directory: Path) -> Iterator[tuple[Path, BinaryIO]]:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_stale(directory)
        path = directory / secrets.token_hex(8)
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _adopt(self, temporary: Path, target: Path) -> None:
        """Give a finished file its name; the directory is synced so that the name survives a power cut."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        _sync_directory(target.parent)

    def _replace(self, target: Path, data: bytes) -> None:
        with self._temporary(self._ingest) as (temporary, file):
            _write(file, (data,), "sha256")
            self._adopt(temporary, target)

    @contextmanager
    def _storing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _storage_error(verb, Path(error.filename or self.path), error) from error


def _take_tag_off(manifests: list[dict[str, Any]], tag: str) -> bool:
    """Remove ``tag`` from whichever entry has it, keeping the manifest listed."""
    for position, entry in enumerate(manifests):
        if (entry.get("annotations") or {}).get(_TAG) != tag:
            continue
        if sum(each["digest"] == entry["digest"] for each in manifests) > 1:
            del manifests[position]
        else:
            manifests[position] = _untagged(entry)
        return True
    return False


def _untagged(entry: dict[str, Any]) -> dict[str, Any]:
    rest = {key: text for key, text in (entry.get("annotations") or {}).items() if key != _TAG}
    plain = {key: value for key, value in entry.items() if key != "annotations"}
    return {**plain, "annotations": rest} if rest else plain


def _write(file: BinaryIO, chunks: Iterable[bytes], algorithm: str) -> tuple[str, int]:
    """Write and sync; the digest and the size of what was written."""
    content = hashlib.new(algorithm)
    size = 0
    for chunk in chunks:
        file.write(chunk)
        content.update(chunk)
        size += len(chunk)
    file.flush()
    os.fsync(file.fileno())
    return f"{algorithm}:{content.hexdigest()}", size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(directory: Path) -> None:
    """Remove what killed processes left; a writer that lives touches its file far more often."""
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # another process does the same
            if time.time() - path.stat().st_mtime > _SECONDS_UNTIL_STALE:
                path.unlink()


def _storage_error(verb: str, path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot {verb} {path}: {error.strerror or error}.",
        hint="Check the free space and the permissions of the local layout.",
    )
