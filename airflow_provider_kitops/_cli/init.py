"""A first Kitfile: init."""

from __future__ import annotations

import argparse
from pathlib import Path

from airflow_provider_kitops._cli.options import Verbs, add_verb, path
from airflow_provider_kitops._cli.session import Session
from airflow_provider_kitops.oci.errors import Conflict


def add_verbs(verbs: Verbs) -> None:
    """Add the parsers of this module's verbs."""
    init = add_verb(verbs, "init", _init, "write a Kitfile for the files of a directory")
    init.add_argument("directory", type=path, nargs="?", default=Path(), metavar="DIR", help="(default: this one)")
    init.add_argument("--name", default="", help="name of the package")
    init.add_argument("--desc", default="", metavar="TEXT", help="description of the package")
    init.add_argument("--author", action="append", default=[], metavar="NAME", help="may be given again")
    init.add_argument("-f", "--force", action="store_true", help="replace a Kitfile that is there")


def _init(session: Session, options: argparse.Namespace) -> int:
    from airflow_provider_kitops.modelkit.fields import field_of
    from airflow_provider_kitops.modelkit.init import suggest_kitfile
    from airflow_provider_kitops.modelkit.kitfile import KITFILE_NAMES, Package
    from airflow_provider_kitops.oci.disk import write_file

    package = Package(name=options.name, description=options.desc, authors=tuple(options.author))
    kitfile = suggest_kitfile(options.directory, package)
    existing = [name for name in KITFILE_NAMES if (options.directory / name).exists()]
    if existing and not options.force:
        raise Conflict(f"There is a Kitfile already: {options.directory / existing[0]}.", hint="--force replaces it.")
    place = options.directory / (existing[0] if existing else KITFILE_NAMES[0])
    text = kitfile.to_yaml()
    write_file(place, text.encode())
    session.answer({"path": str(place), "kitfile": field_of(kitfile, "")}, f"{text}\nwritten to {place}")
    return 0
