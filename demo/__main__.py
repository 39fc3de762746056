"""``python -m demo run`` and ``python -m demo up``; the Makefile calls both."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from airflow_provider_kitops.oci.errors import KitopsError
from demo.flow import MODEL, ROUNDS, Demo, Options
from demo.local_airflow import OwnJudge

_ABOUT = "The whole flow on this machine: fine-tune, judge and promote. make demo and make up call this."


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    home: Path = chosen.home
    if chosen.judge_url and not chosen.judge_model:
        parser.error("--judge-url needs --judge-model: the endpoint's name of the judge")
    key = os.environ.get("JUDGE_API_KEY", "")
    judge = OwnJudge(chosen.judge_url, chosen.judge_model, key) if chosen.judge_url else None
    options = Options(
        home=home,
        seed=chosen.seed,
        base=chosen.base,
        dataset=chosen.dataset,
        judge=judge,
    )
    # Being told to end (by a supervisor, say) unwinds like Ctrl-C, so that nothing started here is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock", timeout=0):
            demo = Demo(options)
            return _up(demo, chosen.port) if chosen.command == "up" else _run(demo)
    except Timeout:
        return _fail(f"Another demo is running in {home}.", "Wait for it, or choose another directory with --home.")
    except KitopsError as error:
        return _fail(error.message, error.hint)
    except OSError as error:
        return _fail(f"{error.filename or home}: {error.strerror or error}.", "Check its permissions and free space.")
    except KeyboardInterrupt:
        return _fail("Interrupted.", "make demo starts again; downloads are kept.", 130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=_ABOUT)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="fine-tune, judge and promote three challengers on this machine")
    up = commands.add_parser("up", help="start Airflow with the example DAGs")
    up.add_argument("--port", type=int, default=8080, help="local port (8080)")
    for each, home in ((run, ".demo/run"), (up, ".demo/up")):
        each.add_argument("--home", type=Path, default=Path(home), help=f"directory for everything it writes ({home})")
        each.add_argument("--seed", type=int, default=0, help="seed of data, training and judge (0)")
        each.add_argument("--base", type=Path, help="a base model of your own: Hugging Face folder or GGUF file")
        each.add_argument("--dataset", type=Path, help="data of your own: JSONL, CSV or Parquet with text and label")
        each.add_argument("--judge-url", default="", help="an OpenAI-compatible endpoint; its key in $JUDGE_API_KEY")
        each.add_argument("--judge-model", default="", help="the endpoint's name of the judge")
    return parser


def _run(demo: Demo) -> int:
    demo.prepare()
    results = demo.rounds()
    back, forward = demo.back_and_forward()
    print(f"\n{_table(results)}\n")
    print(f"Rolled back to {back[:19]}… and forward to {forward[:19]}….")
    print(f"Judge report of the last run: {results[-1]['report']}")
    print(f"See for yourself: .venv/bin/modelkit --layout {demo.layout} list\n")
    keys = ("challenger", "outcome", "mean", "lower", "upper")
    summary = {
        "layout": str(demo.layout),
        "repository": MODEL,
        "champion": demo.digest("champion"),
        "runs": [{key: result[key] for key in keys} for result in results],
    }
    print(json.dumps(summary, ensure_ascii=False))
    expected = ["promote", "promote"]
    outcomes = [result["outcome"] for result in results]
    if [outcomes[0], outcomes[2]] != expected or outcomes[1] == "promote":
        # The figures stand as they are; a script that runs the demo still has to notice.
        return _fail("The outcomes are not those that the demo is about.", "The reports say why.", 3)
    return 0


def _up(demo: Demo, port: int) -> int:
    if not demo.prepared:
        demo.prepare()
    print(f"\nAirflow: http://127.0.0.1:{port} (no password: everybody on this machine is an administrator)")
    print("Unpause the DAG champion_challenger and trigger it with this configuration:\n")
    print(json.dumps(demo.params(ROUNDS[0]), indent=2))
    print("\nCtrl-C ends it.\n", flush=True)
    return demo.airflow.standalone(port)


def _table(results: list[dict[str, Any]]) -> str:
    """The runs as a table with one line each."""
    rows = [("run", "challenger", "outcome", "items", "mean", "95 % interval", "champion afterwards")]
    for number, result in enumerate(results, 1):
        rows.append(
            (
                f"{number}",
                result["challenger"][7:19],
                result["outcome"],
                str(result["items"]),
                f"{result['mean']:+.2f}",
                f"{result['lower']:+.2f} to {result['upper']:+.2f}",
                result["champion"][7:19],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _fail(message: str, hint: str, code: int = 1) -> int:
    print(f"\nerror: {message} {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
