"""A first Kitfile for a directory that has none, from the names and places of its files.

What each file is, is decided in this order: its place in a folder that says so (``docs``, ``data``, ``src``), the tool
that writes files of that name (Transformers, PEFT, MLflow, TensorFlow, Diffusers), and its suffix. Nothing is left out:
what stays unknown becomes code, as with ``kit init``.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from identify import identify

from airflow_provider_kitops.modelkit._paths import is_modelkit_reference, within
from airflow_provider_kitops.modelkit._scan import carriable
from airflow_provider_kitops.modelkit.ignore import IgnoreRules, read_rules
from airflow_provider_kitops.modelkit.kitfile import Code, Dataset, Docs, Kitfile, Model, ModelPart, Package
from airflow_provider_kitops.oci.descriptor import is_text
from airflow_provider_kitops.oci.disk import storage_errors
from airflow_provider_kitops.oci.errors import InvalidInput

log = logging.getLogger(__name__)

#: More top-level directories of code than this become one layer ``.``.
_MAX_CODE_LAYERS = 5
#: More layers of another kind than this are taken together; a manifest of some ten thousand is refused everywhere.
_MAX_LAYERS = 1000
#: Text that is read to learn a licence or a name: a model card or a configuration, never weights.
_MAX_TEXT = 1024 * 1024


class _Kind(Enum):
    WEIGHTS = "weights"
    ADAPTER = "adapter"
    TOKENIZER = "tokenizer"
    SETTINGS = "settings"  # belongs to the model, or to the data where there is no model
    TRAINING = "training state"
    DATA = "data"
    DOCS = "docs"
    CODE = "code"


# fmt: off
_SUFFIXES: dict[_Kind, tuple[str, ...]] = {
    # What kit takes for weights, and what came since.
    _Kind.WEIGHTS: (
        "safetensors", "pkl", "pickle", "joblib", "bin", "pth", "pt", "mar", "pt2", "ptl", "pb", "ckpt", "tflite",
        "tfrecords", "npy", "npz", "keras", "h5", "hdf5", "caffemodel", "pmml", "coreml", "mlmodel", "gguf", "ggml",
        "ggmf", "llamafile", "onnx", "onnx_data", "msgpack", "engine", "plan",
    ),
    _Kind.SETTINGS: ("json", "yaml", "yml", "xml", "txt", "jinja", "toml"),
    _Kind.DOCS: ("md", "adoc", "rst", "html", "pdf"),
    _Kind.DATA: (
        "tar", "zip", "tgz", "gz", "bz2", "zst", "parquet", "csv", "tsv", "jsonl", "ndjson", "arrow", "feather", "avro",
    ),
}
_NAMES: dict[_Kind, tuple[str, ...]] = {
    _Kind.TOKENIZER: (
        "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
        "special_tokens_map.json", "added_tokens.json", "spiece.model", "sentencepiece.bpe.model",
        "chat_template.jinja", "chat_template.json",
    ),
    _Kind.ADAPTER: ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    _Kind.TRAINING: (
        "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin", "trainer_state.json",
    ),
    _Kind.CODE: (
        "requirements.txt", "constraints.txt", "pyproject.toml", "setup.cfg", "poetry.lock", "environment.yml",
        "environment.yaml", "conda.yaml", "python_env.yaml", "docker-compose.yml", "docker-compose.yaml",
        "cmakelists.txt", "package.json",
    ),
}
# fmt: on
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}
_BY_NAME = {name: kind for kind, names in _NAMES.items() for name in names}
_TRAINING = re.compile(r"rng_state(_\d+)?\.pth")
_DIRECTORIES = {
    **dict.fromkeys(("docs", "doc"), _Kind.DOCS),
    **dict.fromkeys(("src", "pkg", "lib", "build", "scripts", "notebooks", "tests"), _Kind.CODE),
    **dict.fromkeys(("data", "dataset", "datasets"), _Kind.DATA),
}
#: A directory with one of these files is one model, whatever else is in it.
_BUNDLES = {
    "saved_model.pb": ("tensorflow", "saved_model"),
    "MLmodel": ("mlflow", "mlflow"),
    "model_index.json": ("diffusers", "diffusers"),
}
_FRAMEWORKS = {
    "gguf": "llama.cpp", "onnx": "onnx", "pt": "pytorch", "pth": "pytorch", "pt2": "pytorch", "ptl": "pytorch",
    "mar": "pytorch", "keras": "keras", "h5": "keras", "tflite": "tensorflow", "pb": "tensorflow", "mlmodel": "coreml",
    "caffemodel": "caffe",
}  # fmt: skip
#: Weights in several formats are the same model most often; this is the one to serve.
_PREFERRED = ("safetensors", "gguf", "onnx", "keras", "pt2", "pt", "pth", "bin", "h5")
_PLAIN_NAMES = re.compile(r"(model|pytorch_model|adapter_model|weights|saved_model|tf_model|flax_model)", re.IGNORECASE)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<of>\d{5})")
_LICENSES = re.compile(r"(licen[sc]e|copying|notice)([._-].*)?", re.IGNORECASE)
_HEADER = re.compile(r"---\n.*?\n---", re.DOTALL)
_SAID_LICENSE = re.compile(
    r"""^license:[ ]+(?P<quote>["']?)(?P<id>[\w.+-][\w.+ -]{0,99}?)(?P=quote)(?:[ ]+\#.*)?[ ]*$""", re.MULTILINE
)
_README = re.compile(r"readme([._-].*)?", re.IGNORECASE)
#: What tools leave in a working directory and nobody wants to publish.
_LEFTOVERS = (".git", ".venv", "venv", "__pycache__", ".ipynb_checkpoints", ".cache", "node_modules", ".DS_Store")


@dataclass(frozen=True)
class _File:
    path: str
    size: int

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def directory(self) -> str:
        return posixpath.dirname(self.path)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1].removeprefix(".").lower()


def suggest_kitfile(directory: Path, package: Package | None = None) -> Kitfile:
    """A Kitfile that names every file of a directory in the section where a reader would look for it.

    Weights become the model and its parts, adapters and tokenizers parts with a type, folders of one kind one layer.
    What ``.kitignore`` names is left out. A licence is taken from the model card's header or told by the text of the
    licence file (``identify``, against the texts of choosealicense.com), and goes to the model, else to the only
    dataset or code layer, else to the package.

    :param package: the section ``package`` of the result; ``license`` is filled in where nothing else carries it.
    :raises InvalidInput: the directory does not exist, or holds no file that can be packed, or kit would read the name
        of the model's file as the reference of a ModelKit.
    :raises UnsafePath: the name of a file is one that no ModelKit can carry.
    :raises StorageError: it cannot be read.
    """
    if not directory.is_dir():
        raise InvalidInput(f"{directory} is not a directory.", hint="Name the directory that is to be packed.")
    links: list[str] = []
    files = sorted(
        _files(directory, read_rules(directory), links), key=lambda file: file.path.encode("utf-8", "replace")
    )
    if not files:
        raise InvalidInput(
            f"{directory} holds no file that can be packed.",
            hint="Symbolic links are not packed: copy the files they point to (cp -L)."
            if links
            else "Put there what is to be packed; .kitignore may leave files out.",
        )
    return _Suggestion(directory, files).kitfile(package or Package())


def _files(root: Path, rules: IgnoreRules, links: list[str]) -> Iterator[_File]:
    """The files that can be packed.

    :param links: what else there is, and cannot, is added here.
    """
    leftovers: list[str] = []
    pending = [""]
    while pending:
        below = pending.pop()
        with storage_errors("read the directory", root / below):
            names = os.listdir(root / below)  # noqa: PTH208 - Path objects of many files cost much
        for name in names:
            path = f"{below}/{name}" if below else name
            with storage_errors("read", root / path):
                status = (root / path).lstat()
            directory = stat.S_ISDIR(status.st_mode)
            if rules.matches(path):
                if directory and rules.has_exceptions:
                    pending.append(path)
            elif name in _LEFTOVERS:
                leftovers.append(path)
            elif directory:
                carriable(path)
                pending.append(path)
            elif stat.S_ISREG(status.st_mode):
                carriable(path)
                yield _File(path, status.st_size)
            else:
                links.append(path)
    if links:
        log.warning("%d symbolic link(s) or special file(s) cannot be packed, among them %s.", len(links), min(links))
    if leftovers:
        log.warning(
            "%s is probably not meant for others; list it in .kitignore, or a layer of its directory will hold it.",
            ", ".join(sorted(leftovers)[:5]),
        )


class _Suggestion:
    """Sorts files into the sections of a Kitfile."""

    def __init__(self, root: Path, files: Sequence[_File]) -> None:
        self.root = root
        self.files = files
        self.licenses = [file for file in files if not file.directory and _LICENSES.fullmatch(file.name)]
        self.readmes = [file for file in files if not file.directory and _README.fullmatch(file.name)]
        self.bundles = self._bundles()
        self.adapters = {file.directory for file in files if file.name == "adapter_config.json"}
        self.kinds = {file: self._kind(file) for file in files if self._bundle(file) is None}
        self.folded: set[str] = set()
        self._fold()

    def kitfile(self, package: Package) -> Kitfile:
        model = self._model()
        # Without weights, what would be parts of the model is taken for data, as kit does.
        data = (_Kind.DATA,) if model else (_Kind.DATA, *_PARTS)
        datasets = [Dataset(path=path, name=_stem(path)) for kind in data for path in self._paths(kind)]
        docs = [Docs(path=path, description=self._description(path)) for path in self._paths(_Kind.DOCS)]
        code = [Code(path=path) for path in self._code()]
        kitfile = Kitfile(package=package, model=model, datasets=tuple(datasets), docs=tuple(docs), code=tuple(code))
        return _licensed(kitfile, self._license())

    def _bundles(self) -> dict[str, tuple[str, str]]:
        found = {file.directory: _BUNDLES[file.name] for file in self.files if file.name in _BUNDLES}
        found.update(
            (parent, ("coreml", "mlpackage"))
            for file in self.files
            for parent in _parents(file.path)
            if parent.endswith(".mlpackage")
        )
        return {path: what for path, what in found.items() if not any(parent in found for parent in _parents(path))}

    def _bundle(self, file: _File) -> str | None:
        if not file.directory and (file in self.licenses or file in self.readmes):
            return None
        return next((bundle for bundle in self.bundles if within(file.path, bundle or ".")), None)

    def _kind(self, file: _File) -> _Kind:
        if file in self.licenses or file in self.readmes:
            return _Kind.DOCS
        lower = file.name.lower()
        by_name = _BY_NAME.get(lower) or (_Kind.TRAINING if _TRAINING.fullmatch(lower) else None)
        by_place = next(
            (kind for part in file.directory.lower().split("/") if (kind := _DIRECTORIES.get(part)) is not None), None
        )
        if by_place is _Kind.CODE or (by_place and by_name is None):
            return by_place
        if by_name:
            return by_name
        kind = _BY_SUFFIX.get(file.suffix, _Kind.CODE)
        if kind is _Kind.WEIGHTS and (file.directory in self.adapters or "lora" in lower):
            return _Kind.ADAPTER
        return kind

    def _fold(self) -> None:
        """Make few of too many layers: folders at the top become data as a whole, then what is left becomes code."""
        many = Counter((path.partition("/")[0], kind) for kind, path in self._layers() if "/" in path)
        self.folded = {folder for (folder, _), count in many.items() if count > _MAX_LAYERS}
        for file in self.kinds:
            if file.path.partition("/")[0] in self.folded:
                self.kinds[file] = _Kind.DATA
        many_left = Counter(kind for kind, _ in self._layers())
        for file, kind in self.kinds.items():
            if many_left[kind] > _MAX_LAYERS:
                self.kinds[file] = _Kind.CODE

    def _layers(self) -> Iterator[tuple[_Kind, str]]:
        """Kinds and paths of layers but of code, at least as many as there can be."""
        for kind in (_Kind.DATA, _Kind.DOCS):
            yield from ((kind, path) for path in self._paths(kind))
        yield from ((kind, file.path) for file, kind in self.kinds.items() if kind in _PARTS)

    def _model(self) -> Model | None:
        weights = [file for file, kind in self.kinds.items() if kind is _Kind.WEIGHTS]
        adapters = [
            file for file, kind in self.kinds.items() if kind is _Kind.ADAPTER and file.name != "adapter_config.json"
        ]
        candidates = weights or adapters
        if self.bundles:
            path, (framework, form) = min(self.bundles.items())
            parts = [ModelPart(path=other or ".", name=_stem(other)) for other in sorted(self.bundles) if other != path]
            name = _stem(path) or self._own_name()
            model = Model(path=path or ".", name=name, framework=framework, format=form)
            chosen: set[_File] = set()
        elif candidates:
            main = self._main(candidates)
            model = Model(path=main.path, name=self._name(main), framework=self._framework(main), format=main.suffix)
            parts, chosen = [], {main}
        else:
            return None
        if is_modelkit_reference(model.path):
            raise InvalidInput(
                f"{model.path} would be the model's path, and kit reads this name as a reference: no layer would hold "
                "it.",
                hint="Rename it, without ':' and '@'.",
            )
        parts += [self._part(file, kind) for file, kind in self.kinds.items() if kind in _PARTS and file not in chosen]
        return replace(model, parts=tuple(parts))

    def _main(self, candidates: Sequence[_File]) -> _File:
        """What stands for the model: in the largest folder of the preferred format, the first shard or largest file."""
        groups: dict[tuple[str, str], list[_File]] = defaultdict(list)
        for file in candidates:
            groups[file.directory, file.suffix].append(file)

        def rank(key: tuple[str, str]) -> tuple[int, int, str]:
            suffix = key[1]
            preferred = _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED)
            return preferred, -sum(file.size for file in groups[key]), key[0]

        group = groups[min(groups, key=rank)]
        largest = max(group, key=lambda file: file.size)
        shard = _SHARD.fullmatch(posixpath.splitext(largest.name)[0])
        if shard:
            return min(
                (file for file in group if file.name.startswith(shard["stem"] + "-")), key=lambda file: file.name
            )
        return largest

    def _name(self, main: _File) -> str:
        stem = posixpath.splitext(main.name)[0]
        shard = _SHARD.fullmatch(stem)
        stem = shard["stem"] if shard else stem
        if not _PLAIN_NAMES.fullmatch(stem):
            return stem
        said = self._json(posixpath.join(main.directory, "config.json")).get("_name_or_path")
        if isinstance(said, str) and said.isprintable() and not said.startswith((".", "/")):
            return posixpath.basename(said.rstrip("/"))
        return posixpath.basename(main.directory) or self._own_name()

    def _own_name(self) -> str:
        name = self.root.resolve().name
        return name if is_text(name) else ""

    def _framework(self, main: _File) -> str:
        if self.kinds[main] is _Kind.ADAPTER and main.suffix != "gguf":
            return "peft"
        if "transformers_version" in self._json(posixpath.join(main.directory, "config.json")):
            return "transformers"
        return _FRAMEWORKS.get(main.suffix, "")

    def _part(self, file: _File, kind: _Kind) -> ModelPart:
        form = {_Kind.ADAPTER: "adapter", _Kind.TOKENIZER: "tokenizer", _Kind.TRAINING: "training-state"}.get(kind, "")
        if kind is _Kind.ADAPTER:
            method = self._json(posixpath.join(file.directory, "adapter_config.json")).get("peft_type")
            if method == "LORA" or "lora" in file.name.lower():
                form = "lora-adapter"
        if kind is _Kind.SETTINGS:
            form = "config"
        return ModelPart(path=file.path, name=file.name, type=form)

    def _paths(self, wanted: _Kind) -> list[str]:
        """Paths of layers of one kind: a folder as a whole where it holds nothing else, else file by file."""
        whole = self._whole(wanted)
        paths: dict[str, None] = {}
        for file, kind in self.kinds.items():
            if kind is wanted:
                paths[next((parent for parent in _parents(file.path) if parent in whole), file.path)] = None
        return list(paths)

    def _whole(self, wanted: _Kind) -> set[str]:
        kinds = {(f"{file.directory}/", self.kinds.get(file)) for file in self.files}
        mixed = {parent for directory, kind in kinds if kind is not wanted for parent in _parents(directory)}
        whole = {parent for directory, _ in kinds for parent in _parents(directory)} - mixed
        return whole | self.folded if wanted is _Kind.DATA else whole

    def _code(self) -> list[str]:
        """Code by its files and folders where these are few, else what no other layer holds (``.``)."""
        paths = self._paths(_Kind.CODE)
        return paths if len(paths) <= _MAX_CODE_LAYERS else ["."]

    def _description(self, path: str) -> str:
        if any(file.path == path for file in self.licenses):
            return "License file"
        return "Readme file" if any(file.path == path for file in self.readmes) else ""

    def _license(self) -> str:
        for file in self.readmes:
            if said := _said_license(self._text(file.path)):
                return said
        for file in self.licenses:
            with storage_errors("read", self.root / file.path):
                try:
                    found = identify.license_id(str(self.root / file.path)) if file.size <= _MAX_TEXT else None
                except UnicodeDecodeError:
                    found = None
            if found:
                return str(found)
            log.warning("The licence in %s is not known; fill it in yourself.", file.path)
        return ""

    def _text(self, path: str) -> str:
        with storage_errors("read", self.root / path), (self.root / path).open("rb") as file:
            return file.read(_MAX_TEXT).decode(errors="replace")

    def _json(self, path: str) -> dict[str, Any]:
        """A configuration that a tool wrote; empty if it is not there or says nothing that can be read."""
        if not any(file.path == path for file in self.files):
            return {}
        try:
            value = json.loads(self._text(path))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


_PARTS = (_Kind.WEIGHTS, _Kind.ADAPTER, _Kind.TOKENIZER, _Kind.SETTINGS, _Kind.TRAINING)


def _parents(path: str) -> Iterable[str]:
    """The directories above ``path``, the outermost first."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _said_license(text: str) -> str:
    """The licence that the header of a model card names (Hugging Face's model cards, "metadata").

    One line is looked for, and no YAML is read: aliases in it could stand for far more than there is memory.
    """
    header = _HEADER.match(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    said = _SAID_LICENSE.search(header[0]) if header else None
    return said["id"] if said and said["id"].lower() not in ("other", "unknown", "null") else ""


def _licensed(kitfile: Kitfile, license_id: str) -> Kitfile:
    if not license_id:
        return kitfile
    if kitfile.model:
        return replace(kitfile, model=replace(kitfile.model, license=license_id))
    if len(kitfile.datasets) == 1:
        return replace(kitfile, datasets=(replace(kitfile.datasets[0], license=license_id),))
    if len(kitfile.code) == 1:
        return replace(kitfile, code=(replace(kitfile.code[0], license=license_id),))
    return replace(kitfile, package=replace(kitfile.package, license=license_id))
