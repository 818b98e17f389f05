"""``polytls profiles``: which upstream profiles there are, and what one says."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from polytls.settings import Settings

_EPILOG = """\
examples:
  polytls profiles list
  polytls profiles list --config config/polytls.toml
  polytls profiles show firefox > mine.toml      # complete: a start for a profile of your own
"""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "profiles",
        help="list upstream profiles, or show one",
        description="The upstream profiles: the built-in ones, and those of a configuration.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    listing = what.add_parser("list", help="names, other names, descriptions", allow_abbrev=False)
    listing.set_defaults(run=run_list)
    show = what.add_parser("show", help="one profile, as TOML", allow_abbrev=False)
    show.add_argument("name", metavar="NAME", help="of the profile, in any case")
    show.set_defaults(run=run_show)
    for each in (listing, show):
        each.add_argument("--config", type=Path, metavar="FILE", help="configuration (TOML) with profiles")


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each profile. Raises `UserError`."""
    settings, catalog = _load(args)
    default = catalog.find(settings.upstream.default_profile)
    rows = [
        (
            f"{'*' if spec is default else ' '} {spec.name}",
            ", ".join(catalog.aliases_of(spec)),
            spec.description,
        )
        for spec in catalog.specs()
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, aliases, description in rows:
        print(f"{name:{widths[0]}}  {aliases:{widths[1]}}  {description}".rstrip())
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print the profile as a TOML table. Raises `UserError`."""
    from polytls.profiles.show import as_toml

    _, catalog = _load(args)
    spec = catalog.require(args.name, source="command line", key="NAME")
    print(as_toml(spec), end="")
    return 0


def _load(args: argparse.Namespace) -> tuple[Settings, Catalog]:
    from polytls.config import load_settings
    from polytls.profiles import Catalog

    settings = load_settings(args.config, os.environ, {}).settings
    return settings, Catalog.load(settings.profile_tables, settings.source)
