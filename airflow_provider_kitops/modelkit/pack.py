"""Pack a context directory into a repository as a ModelKit."""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from airflow_provider_kitops.modelkit._compression import compressed
from airflow_provider_kitops.modelkit._raw import metadata
from airflow_provider_kitops.modelkit.forms import Compression, LayerFormat, ManifestFormat
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
    CLI_VERSION,
    CONFIG_TYPE,
    CREATED,
    FILE_METADATA,
    FILE_PATH,
    KITFILE,
    LAYER_SUBTYPE,
    MODELPACK_ARTIFACT_TYPE,
    MODELPACK_CONFIG_TYPE,
    Layer,
    layer_type,
    manifest_bytes,
)
from airflow_provider_kitops.modelkit.modelkit import ModelKit
from airflow_provider_kitops.modelkit.parents import ParentResolver, chain
from airflow_provider_kitops.oci.descriptor import MANIFEST, Descriptor
from airflow_provider_kitops.oci.disk import check_room
from airflow_provider_kitops.oci.errors import InvalidInput, LimitExceeded, NotFound, VerificationFailed
from airflow_provider_kitops.oci.layout import Layout
from airflow_provider_kitops.oci.parallel import Stop, run_all
from airflow_provider_kitops.oci.tagging import DEFAULT_MUTABLE_TAGS, apply_tags, split_tags, tags_to_set
from airflow_provider_kitops.oci.target import Progress, ProgressHook, Tags, Target

log = logging.getLogger(__name__)

_ARTIFACT_TYPES = {"modelkit": ARTIFACT_TYPE, "modelkit-v1.7": None, "modelpack": MODELPACK_ARTIFACT_TYPE}

#: How many tags are looked at for layers that may be there already.
_KNOWN_TAGS = 10


def pack(
    context: Path,
    kitfile: Kitfile | Path | None,
    target: Target | None,
    reference: Tags = None,
    *,
    mutable_tags: Sequence[str] = DEFAULT_MUTABLE_TAGS,
    created: datetime | None = None,
    annotations: Mapping[str, str] | None = None,
    compression: Compression = "none",
    layer_format: LayerFormat = "tar",
    manifest_format: ManifestFormat = "modelkit",
    skip_two_dots: bool = False,
    concurrency: int = 5,
    on_progress: ProgressHook | None = None,
    parents: ParentResolver | None = None,
) -> ModelKit:
    """Pack ``context`` into ``target``; layer digests equal those of kit, equal input gives an equal manifest.

    Layers are streamed: nothing is staged on disk, memory does not grow with their size. A layer that a tagged ModelKit
    of the repository may hold already (same media type and size) is hashed first and not sent when it is the same.
    Manifest and tags come last, so what fails leaves no ModelKit behind.

    :param kitfile: the Kitfile, its path (as it is, or below the context), or ``None`` to look for one in the context.
    :param target: where to; ``None`` reads and hashes everything and stores nothing, to learn the digest.
    :param reference: tags for the ModelKit in ``target``; none leaves it untagged.
    :param mutable_tags: patterns of the tags that may move from one digest to another.
    :param created: moment for ``org.opencontainers.image.created``; by default ``SOURCE_DATE_EPOCH``, else none.
    :param annotations: more annotations for the manifest.
    :param compression: saves space for text, and gives other digests than kit's; the diffIds stay the same.
    :param layer_format: ``raw`` stores each layer's one file as it is, so that others can read it out of the registry.
    :param manifest_format: today's, that of kit 1.7 (for what reads nothing newer), or a CNCF ModelPack.
    :param skip_two_dots: leave out files whose names hold ``..`` with a warning, as kit does without one, instead of
        refusing them.
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
    for name, value, known in (
        ("compression", compression, get_args(Compression)),
        ("layer format", layer_format, get_args(LayerFormat)),
        ("manifest format", manifest_format, get_args(ManifestFormat)),
    ):
        if value not in known:
            raise InvalidInput(f"The {name} {value!r} is not known.", hint=f"Use one of {', '.join(known)}.")
    more = {**(annotations or {}), **_created(created)}
    kitfile = _kitfile(context, kitfile)
    _representable(kitfile, manifest_format, layer_format, compression)
    if kitfile.base_reference and (context / kitfile.base_reference).exists():
        log.warning(
            "%s is read as the reference of a ModelKit, as kit does; the file of that name is not packed. Rename it.",
            kitfile.base_reference,
        )
    inherited = _inherited(kitfile, parents)
    plans = plan_layers(
        context, kitfile, read_rules(context), inherited, layer_format=layer_format, skip_two_dots=skip_two_dots
    )
    tags = split_tags(reference)
    known_layers = _known_layers(target, tags) if plans and target else ()
    form = _Form(manifest_format, compression, more.get(CREATED, "1970-01-01T00:00:00Z"))
    jobs = [_Job(plan, target, form, known_layers, on_progress) for plan in plans]
    if on_progress:
        for plan in plans:
            on_progress(Progress("pack", plan.path, 0, plan.size))  # so that the whole is known from the beginning
    if isinstance(target, Layout):
        # How much compression will save is not known, nor which of the layers that look alike are.
        sizes = [job.size for job in jobs if job.compression == "none" and not job.candidates]
        check_room(target.path, sum(sizes), "packed")
    results = run_all([job.run for job in jobs], concurrency, [target])
    if manifest_format == "modelkit-v1.7":
        more = {CLI_VERSION: "1.7.0", **more}
    if manifest_format == "modelpack":
        from airflow_provider_kitops.modelkit.modelpack import modelpack_config

        config = modelpack_config(kitfile, [result.diff_id for result in results], more.get(CREATED, ""))
        config_descriptor = Descriptor.of(MODELPACK_CONFIG_TYPE, config)
        more = {KITFILE: kitfile.to_config_json().decode(), **more}
    else:
        config = kitfile.to_config_json([LayerIds(result.descriptor.digest, result.diff_id) for result in results])
        config_descriptor = Descriptor.of(CONFIG_TYPE, config)
    manifest = manifest_bytes(config_descriptor, [result.descriptor for result in results], more, manifest_format)
    descriptor = Descriptor.of(MANIFEST, manifest, artifact_type=_ARTIFACT_TYPES[manifest_format])
    if target:
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


def _representable(
    kitfile: Kitfile, manifest_format: ManifestFormat, layer_format: LayerFormat, compression: Compression
) -> None:
    """Fail before a layer is sent, not after all of them."""
    kitfile.to_config_json()
    if manifest_format == "modelpack" and layer_format == "raw" and compression != "none":
        raise InvalidInput("Raw layers of a ModelPack are never compressed.", hint="Use compression none, or tar.")
    if manifest_format == "modelkit-v1.7":
        later = [name for name, used in (("prompts", kitfile.prompts), ("mcpServers", kitfile.mcp_servers)) if used]
        later += [f"{dataset.path}: remotePath" for dataset in kitfile.datasets if dataset.remote_path]
        later += [name for name in (layer_format, compression) if name in ("raw", "zstd")]
        if later:
            raise InvalidInput(f"kit 1.7 cannot read this ModelKit: it has no {', no '.join(later)}.")
    for kind, _ in kitfile.entries():
        layer_type(kind, compression, layer_format, manifest_format)


def _kitfile(context: Path, kitfile: Kitfile | Path | None) -> Kitfile:
    if not isinstance(kitfile, Kitfile):
        if not context.is_dir():
            raise InvalidInput(f"The context directory {context} does not exist.")
        path = find_kitfile(context) if kitfile is None else Path(kitfile)
        kitfile = read_kitfile(context / path if not path.exists() and (context / path).exists() else path)
    else:
        check_kitfile(kitfile)
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


def _known_layers(target: Target, tags: Sequence[str]) -> Sequence[Layer]:
    """Layers that ModelKits of the repository have: those under ``tags`` first, then under some of the others."""
    others = [tag for tag in target.tags() if tag not in tags]
    known: dict[Descriptor, Layer] = {}
    for tag in [*tags, *reversed(others)][: len(tags) + _KNOWN_TAGS]:
        try:
            known |= {layer.descriptor: layer for layer in ModelKit.read(target, tag).layers}
        except (NotFound, InvalidInput, LimitExceeded, VerificationFailed):
            # Not there yet, damaged, or something other than a ModelKit: no help in finding layers.
            continue
    return tuple(known.values())


@dataclass(frozen=True)
class _Result:
    descriptor: Descriptor
    diff_id: str


@dataclass(frozen=True)
class _Form:
    """How layers are written.

    :param modified: RFC 3339 time that the files of raw layers get.
    """

    manifest_format: ManifestFormat
    compression: Compression
    modified: str

    def compression_of(self, plan: LayerPlan) -> Compression:
        return "none" if plan.kind is LayerKind.MCP_SERVER else self.compression

    def annotations(self, plan: LayerPlan) -> dict[str, str]:
        if self.manifest_format == "modelkit-v1.7":
            return {}
        found = {FILE_PATH: plan.path}
        if plan.layer_format == "raw":
            (file,) = plan.entries
            found[FILE_METADATA] = metadata(posixpath.basename(file.name), file.mode & 0o777, file.size, self.modified)
        if plan.kind is LayerKind.PROMPT:
            found[LAYER_SUBTYPE] = "prompt"
        return dict(sorted(found.items()))


class _Job:
    """Sends one layer."""

    def __init__(
        self,
        plan: LayerPlan,
        target: Target | None,
        form: _Form,
        known: Sequence[Layer],
        on_progress: ProgressHook | None,
    ) -> None:
        self.plan = plan
        self.target = target
        self.form = form
        self.compression = form.compression_of(plan)
        self.on_progress = on_progress
        self.stop = Stop()
        self.media_type = layer_type(plan.kind, form.compression, plan.layer_format, form.manifest_format)
        self.size = plan.size
        self.diff_id = ""
        # Compressed sizes say nothing before the work is done.
        self.candidates = [
            layer
            for layer in known
            if layer.descriptor.media_type == self.media_type
            and (self.compression != "none" or layer.descriptor.size == self.size)
        ]

    def run(self, stop: Stop) -> _Result:
        self.stop = stop
        descriptor = self._sent()
        if self.compression == "none":
            self.diff_id = descriptor.digest
        annotations = self.form.annotations(self.plan)
        annotated = Descriptor(self.media_type, descriptor.digest, descriptor.size, annotations)
        return _Result(annotated, self.diff_id)

    def _sent(self) -> Descriptor:
        if self.target is None:
            return self._hashed(self._stream())
        return self._existing(self.target) or self.target.push(self.media_type, self._stream)

    def _existing(self, target: Target) -> Descriptor | None:
        """The layer that is there already with these bytes, if there is one."""
        if not self.candidates:
            return None
        content = self._hashed(self.plan.chunks(self._progress()))
        if content.digest not in {layer.diff_id or layer.descriptor.digest for layer in self.candidates}:
            return None
        # The same content may have been compressed by another tool, whose bytes would make this manifest another one
        # than that of an empty repository: what counts is the digest that this compression gives.
        hashed = content if self.compression == "none" else self._hashed(self._stream())
        found = next((layer.descriptor for layer in self.candidates if layer.descriptor.digest == hashed.digest), None)
        if found is None or not target.exists(found):
            return None
        if self.on_progress:
            self.on_progress(Progress("skip", self.plan.path, hashed.size, hashed.size))
        return found

    def _hashed(self, chunks: Iterator[bytes]) -> Descriptor:
        hashing = hashlib.sha256()
        size = 0
        for chunk in chunks:
            hashing.update(chunk)
            size += len(chunk)
        return Descriptor(self.media_type, f"sha256:{hashing.hexdigest()}", size)

    def _stream(self) -> Iterator[bytes]:
        """The bytes of the blob, anew each time."""
        chunks = self.plan.chunks(self._progress())
        return chunks if self.compression == "none" else compressed(chunks, self.compression, self._learn)

    def _learn(self, digest: str) -> None:
        self.diff_id = digest

    def _progress(self) -> Callable[[int], None]:
        done = 0

        def on_bytes(count: int) -> None:
            nonlocal done
            self.stop.check()
            done += count
            if self.on_progress:
                self.on_progress(Progress("pack", self.plan.path, done, self.size))

        return on_bytes
