"""Pack a context directory into a repository as a ModelKit."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from airflow_provider_kitops.modelkit._parallel import Stop, run_all
from airflow_provider_kitops.modelkit.ignore import read_rules
from airflow_provider_kitops.modelkit.kitfile import (
    Kitfile,
    LayerIds,
    LayerKind,
    check_kitfile,
    find_kitfile,
    read_kitfile,
)
from airflow_provider_kitops.modelkit.layers import LayerPlan, plan_layers
from airflow_provider_kitops.modelkit.manifest import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    CREATED,
    FILE_PATH,
    LAYER_SUBTYPE,
    layer_type,
    manifest_bytes,
)
from airflow_provider_kitops.modelkit.modelkit import Layer, ModelKit
from airflow_provider_kitops.modelkit.parents import ParentResolver, chain
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.errors import InvalidInput, InvalidKitfile, LimitExceeded, NotFound, VerificationFailed
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, apply_tags, split_tags, tags_to_set
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Tags, Target

Compression = Literal["none", "gzip"]

#: How many tags are looked at for layers that may be there already.
_KNOWN_TAGS = 10


def pack(
    context: Path,
    kitfile: Kitfile | Path | None,
    target: Target,
    reference: Tags = None,
    *,
    mutable_tags: Sequence[str] = DEFAULT_MUTABLE_TAGS,
    created: datetime | None = None,
    annotations: Mapping[str, str] | None = None,
    compression: Compression = "none",
    concurrency: int = 5,
    on_progress: ProgressHook | None = None,
    parents: ParentResolver | None = None,
) -> ModelKit:
    """Pack ``context`` into ``target``; layer digests equal those of kit, equal input gives an equal manifest.

    Layers are streamed: nothing is staged on disk, memory does not grow with their size. A layer that a tagged ModelKit
    of the repository may hold already (same media type and size) is hashed first and not sent when it is the same.
    Manifest and tags come last, so what fails leaves no ModelKit behind.

    :param kitfile: the Kitfile, its path (as it is, or below the context), or ``None`` to look for one in the context.
    :param reference: tags for the ModelKit in ``target``; none leaves it untagged.
    :param mutable_tags: patterns of the tags that may move from one digest to another.
    :param created: moment for ``org.opencontainers.image.created``; by default ``SOURCE_DATE_EPOCH``, else none.
    :param annotations: more annotations for the manifest.
    :param compression: ``gzip`` saves space for text, and gives other digests than kit's.
    :param concurrency: how many layers are packed at a time.
    :param parents: finds the ModelKits that this one is based on, whose files are then not packed again.
    :raises InvalidInput: a path of the Kitfile does not exist or is empty, or an argument cannot be used.
    :raises InvalidKitfile: the Kitfile breaks a rule.
    :raises UnsafePath: a name that no ModelKit can carry.
    :raises StorageError: a file cannot be read, changes while it is read, or the disk is full.
    :raises Conflict: a tag that must not move names something else.
    """
    context = Path(context)
    if concurrency < 1:
        raise InvalidInput(f"The concurrency is {concurrency}; it must be at least 1.")
    if compression not in ("none", "gzip"):
        raise InvalidInput(f"The compression {compression!r} is not known.", hint="Use none or gzip.")
    more = {**(annotations or {}), **_created(created)}
    kitfile = _kitfile(context, kitfile)
    inherited = _inherited(kitfile, parents)
    plans = plan_layers(context, kitfile, read_rules(context), inherited)
    tags = split_tags(reference)
    known = _known_layers(target, tags) if plans else frozenset()
    jobs = [_Job(plan, target, compression, known, on_progress).run for plan in plans]
    results = run_all(jobs, concurrency)
    config = kitfile.to_config_json([LayerIds(result.descriptor.digest, result.diff_id) for result in results])
    config_descriptor = Descriptor.of(CONFIG_TYPE, config)
    manifest = manifest_bytes(config_descriptor, [result.descriptor for result in results], more)
    descriptor = Descriptor.of(MANIFEST, manifest, artifact_type=ARTIFACT_TYPE)
    # A tag that must not move is noticed before the manifest is there.
    tags_to_set(target, descriptor, tags, mutable=mutable_tags)
    target.push(config_descriptor, config)
    target.push(descriptor, manifest)
    apply_tags(target, descriptor, tags, mutable=mutable_tags)
    layers = tuple(
        Layer(result.descriptor, kind, entry.path, getattr(entry, "name", ""), result.diff_id)
        for result, (kind, entry) in zip(results, kitfile.entries(), strict=True)
    )
    return ModelKit(descriptor, manifest, config, kitfile, layers, more)


def _kitfile(context: Path, kitfile: Kitfile | Path | None) -> Kitfile:
    if not isinstance(kitfile, Kitfile):
        if not context.is_dir():
            raise InvalidInput(f"The context directory {context} does not exist.")
        path = find_kitfile(context) if kitfile is None else Path(kitfile)
        kitfile = read_kitfile(context / path if not path.exists() and (context / path).exists() else path)
    else:
        check_kitfile(kitfile)
    # Fails before a layer is sent, not after all of them.
    kitfile.to_config_json()
    if kitfile.mcp_servers:
        raise InvalidKitfile("mcpServers need a raw layer, which cannot be packed yet.", hint="Pack them with kit.")
    return kitfile


def _created(created: datetime | None) -> dict[str, str]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if created is None and epoch:
        try:
            created = datetime.fromtimestamp(int(epoch), UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidInput(f"SOURCE_DATE_EPOCH is {epoch[:100]!r}, not a number of seconds.") from error
    if created is None:
        return {}
    if created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    return {CREATED: created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def _inherited(kitfile: Kitfile, parents: ParentResolver | None) -> list[str]:
    """Paths of the model layers of all parents: what unpacking will put there."""
    if parents is None:
        return []
    return [
        layer.path
        for _, parent in chain(kitfile.base_reference, parents)
        for layer in parent.layers
        if layer.kind in (LayerKind.MODEL, LayerKind.MODEL_PART)
    ]


def _known_layers(target: Target, tags: Sequence[str]) -> frozenset[Descriptor]:
    """Layers that ModelKits of the repository have: those under ``tags`` first, then under some of the others."""
    others = [tag for tag in target.tags() if tag not in tags]
    known: set[Descriptor] = set()
    for tag in [*tags, *reversed(others)][: len(tags) + _KNOWN_TAGS]:
        try:
            known |= {layer.descriptor for layer in ModelKit.read(target, tag).layers}
        except (NotFound, InvalidInput, LimitExceeded, VerificationFailed):
            # Not there yet, damaged, or something other than a ModelKit: no help in finding layers.
            continue
    return frozenset(known)


@dataclass(frozen=True)
class _Result:
    descriptor: Descriptor
    diff_id: str


class _Job:
    """Sends one layer."""

    def __init__(
        self,
        plan: LayerPlan,
        target: Target,
        compression: Compression,
        known: frozenset[Descriptor],
        on_progress: ProgressHook | None,
    ) -> None:
        self.plan = plan
        self.target = target
        self.compression = compression
        self.on_progress = on_progress
        self.stop = Stop()
        self.media_type = layer_type(plan.kind, compression)
        self.size = plan.size
        self.diff_id = ""
        # Compressed sizes say nothing before the work is done.
        self.candidates = {
            layer.digest: layer
            for layer in known
            if layer.media_type == self.media_type and (compression != "none" or layer.size == self.size)
        }
        self.annotations = {FILE_PATH: plan.path}
        if plan.kind is LayerKind.PROMPT:
            self.annotations = {LAYER_SUBTYPE: "prompt", **self.annotations}

    def run(self, stop: Stop) -> _Result:
        self.stop = stop
        descriptor = self._existing() or self.target.push(self.media_type, self._stream)
        if self.compression == "none":
            self.diff_id = descriptor.digest
        annotated = Descriptor(self.media_type, descriptor.digest, descriptor.size, self.annotations)
        return _Result(annotated, self.diff_id)

    def _existing(self) -> Descriptor | None:
        """The layer that is there already with these bytes, if there is one."""
        if not self.candidates:
            return None
        hashing = hashlib.sha256()
        size = 0
        for chunk in self._stream():
            hashing.update(chunk)
            size += len(chunk)
        found = self.candidates.get(f"sha256:{hashing.hexdigest()}")
        if found is None or not self.target.exists(found):
            return None
        if self.on_progress:
            self.on_progress(Progress("skip", self.plan.path, size, size))
        return found

    def _stream(self) -> Iterator[bytes]:
        """The bytes of the blob, anew each time."""
        chunks = self.plan.chunks(self._progress())
        return self._gzip(chunks) if self.compression == "gzip" else chunks

    def _progress(self) -> Callable[[int], None]:
        done = 0

        def on_bytes(count: int) -> None:
            nonlocal done
            self.stop.check()
            done += count
            if self.on_progress:
                self.on_progress(Progress("pack", self.plan.path, done, self.size))

        return on_bytes

    def _gzip(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Compress with a header that holds neither name nor time; the diffId is known at the end."""
        hashing = hashlib.sha256()
        compressor = zlib.compressobj(level=6, wbits=31)
        for chunk in chunks:
            hashing.update(chunk)
            if data := compressor.compress(chunk):
                yield data
        yield compressor.flush()
        self.diff_id = f"sha256:{hashing.hexdigest()}"
