"""The frame of a program that runs as a workload: where its directories are, and how it ends.

A program ends with exit code 0 only when its output is whole. Everything else is a non-zero exit whose last line says
in one sentence what was wrong, because that line is what an operator's log and a pod's status show.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_provider_kitops.oci.errors import InvalidInput, KitopsError, StorageError, WorkloadFailed
from airflow_provider_kitops.workload.spec import CHECKPOINTS, CONFIG, DIRECTORIES, INPUTS, OUTPUT
from airflow_provider_kitops.workload.usage import Usage, asks_for_help

#: Set before any training library is imported: nothing is looked up, downloaded or reported outside.
OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Bars are no lines; what a person wants to know is told by progress lines.
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True)
class Directories:
    """Where a program reads and writes.

    :param inputs: one directory for each input, by name.
    :param config: holds ``config.yaml`` and ``config.json``.
    :param output: what becomes the output ModelKit.
    :param checkpoints: survives a restart of the same work.
    """

    inputs: Path
    config: Path
    output: Path
    checkpoints: Path

    @classmethod
    def from_environment(cls) -> Directories:
        """The directories that the runner names, or those that containers mount.

        :raises InvalidInput: there is no inputs directory.
        :raises StorageError: output or checkpoints cannot be made.
        """
        path = {name: Path(os.environ.get(name) or default) for name, default in DIRECTORIES.items()}
        if not path[INPUTS].is_dir():
            raise InvalidInput(
                f"There is no inputs directory {path[INPUTS]}.",
                hint=f"Set ${INPUTS} to the directory that holds the unpacked inputs.",
            )
        for name in (OUTPUT, CHECKPOINTS):
            try:
                path[name].mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"Cannot make {path[name]}: {error.strerror}.", hint=f"Set ${name}.") from error
        return cls(path[INPUTS], path[CONFIG], path[OUTPUT], path[CHECKPOINTS])


def run_program(
    program: Callable[[Directories, Sequence[str]], None],
    arguments: Sequence[str] | None = None,
    *,
    usage: Usage | None = None,
) -> int:
    """Run ``program`` and turn whatever happens into an exit code and, on failure, one last line.

    :param arguments: its command line; by default this process's.
    :param usage: what ``-h`` and ``--help`` are answered with, wherever directories are missing.

    :returns: 0; the error's own exit code for errors of this package; 143 for SIGTERM; 1 for anything else.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if usage and asks_for_help(arguments):
        print(usage)  # noqa: T201 - asked for
        return 0
    os.environ.update(OFFLINE)
    # Threads that spin while they wait for each other slow a busy machine down tenfold and more; sleeping ones do not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    # What will change in a later version of a library is no news to whoever runs the program.
    warnings.simplefilter("ignore", FutureWarning)
    try:
        directories = Directories.from_environment()
        # Nothing of the user's own caches and logins is read or written.
        os.environ["HF_HOME"] = str(directories.checkpoints / "cache")
        program(directories, arguments)
    except KitopsError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        traceback.print_exc()
        return _fail(f"{error.strerror or error}: {error.filename or 'a file'}.", 1)
    except MemoryError:
        traceback.print_exc()
        return _fail("Out of memory. Use a smaller batch_size or max_length.", 1)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)
    except Exception as error:  # noqa: BLE001 - every failure becomes an exit code; the traceback is in the log
        traceback.print_exc()
        return _fail(f"{type(error).__name__}: {error}", 1)
    return 0


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """See that every figure is a number, before anything says that the work is done.

    :raises WorkloadFailed: one is not (NaN, infinity), which JSON cannot say either.
    """
    wrong = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise WorkloadFailed(
            f"These metrics are no numbers: {', '.join(f'{name} is {metrics[name]}' for name in wrong)}.",
            hint="The model does not answer in numbers any more: check its training, its base and its dtype.",
        )


def write_metrics(metrics: Mapping[str, Any], directories: Directories) -> None:
    """Write ``metrics.json`` to the output.

    :raises WorkloadFailed: as ``check_metrics`` does.
    """
    check_metrics(metrics)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    (directories.output / "metrics.json").write_text(text, encoding="utf-8")


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the last line is part of the interface
    return code


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
