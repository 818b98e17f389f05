"""``polytls profiles``: which upstream profiles there are, what one says, and whether it is what it says."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.cli.configured import add_config

if TYPE_CHECKING:
    from polytls.profiles import Catalog
    from polytls.settings import Settings

_EPILOG = """\
examples:
  polytls profiles list
  polytls profiles list --config config/polytls.toml
  polytls profiles list --profiles profiles/
  polytls profiles show firefox > mine.toml      # complete: a start for a profile of your own
  polytls profiles learn handshake.pcap --name lab --out lab.toml
  polytls profiles diff chrome lab.toml
  polytls profiles verify
"""

_LEARN_EPILOG = """\
examples:
  polytls profiles learn handshake.pcap --name lab-app --out lab-app.toml
  polytls profiles learn hellos.json --name lab-app            # to standard output
  polytls profiles learn traffic.pcapng --name lab --out profiles/      # several clients: a file each
  polytls profiles learn --listen 127.0.0.1:8443 --count 4 --name lab-app
  polytls profiles learn 771,4865-4866,0-10-13-43-45-51,29-23, --name lab --base openssl

SOURCE holds ClientHellos as for `polytls fingerprint`. Several of one client tell what varies: whether it
permutes its extensions, which lengths and algorithms of GREASE ECH it draws. What is written is a
[profiles.NAME] table for a configuration. What a first ClientHello does not show is taken from the TLS
library that wrote it, and what was left out or supplied is said in comments.

SOURCE may be a JA3 text, JA4_r or JA4_ro as well, or a file with one. Such a text tells a few lists and no
more: the rest is the nearest profile's, or --base's, and all that was filled in is said on stderr and in
comments. What is written has the text exactly, or says that it has not. Hashes tell nothing.
"""

_DIFF_EPILOG = """\
examples:
  polytls profiles diff chrome firefox
  polytls profiles diff chrome-152 handshake.pcap
  polytls profiles diff mine.toml captures/0001-t13d1517h2_8daaf6152771_b6f405a00624.json --json

A and B are names of profiles, TOML files with one profile, or captures (-: one on standard input). A file
that is called like a profile is named with its directory: ./chrome. What is fresh in every ClientHello is not
compared. A profile by knobs is compared by what the engine sends for it.

exit codes: 0 no difference, 1 they differ, 2 something is wrong with A or B
"""

_VERIFY_EPILOG = """\
examples:
  polytls profiles verify                              # all of them, each against its own definition
  polytls profiles verify chrome firefox --against tests/golden/clients
  polytls profiles verify --config config/polytls.toml --json

The engine connects to a capture server on 127.0.0.1, several times with each profile, and what arrives is
compared with DIR/NAME.json, the captures of the real client; where there is none, with the profile's own
definition. What has to be fresh in every ClientHello has to differ, and the handshakes have to succeed.
Where the captures have second hellos (asked for another group, for a cookie, resuming), those are compared
too.

  exact          equal in every byte that is not fresh (to an imitation's, where that is said of the capture)
  as defined     equal to the definition, which says why it is unlike the capture, an imitation's
  not compared   a profile by knobs without a capture: it promises no bytes
  differs        what and where follows

exit codes: 0 none differs, 1 one does, 2 something is wrong with a name, a profile or DIR
"""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "profiles",
        help="list, show, learn, compare and verify upstream profiles",
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
    learn = _add_learn(what)
    diff = _add_diff(what)
    verify = _add_verify(what)
    for each in (listing, show, learn, diff, verify):
        add_config(each, "configuration (TOML) with profiles")
        each.add_argument("--profiles", type=Path, metavar="DIR", help="profile files, NAME.toml")


def _add_learn(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    from polytls.cli.capture import add_ca_dir, add_listen, positive

    parser: argparse.ArgumentParser = what.add_parser(
        "learn",
        help="write a profile from captured ClientHellos",
        description="Write the profile of a client whose ClientHellos were captured, or that connects now.",
        epilog=_LEARN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="?", help="a capture, or a text; -: standard input")
    add("--name", metavar="NAME", required=True, help="of the profile")
    add(
        "--out",
        metavar="FILE",
        help="write to FILE, or to NAME.toml in a directory (FILE/), instead of stdout",
    )
    add_listen(parser, None)
    add_ca_dir(parser)
    add("--count", type=positive, metavar="N", help="with --listen: learn from N connections (4)")
    add("--base", metavar="NAME", help="of a text: the profile that has the rest (the nearest one)")
    parser.set_defaults(run=run_learn)
    return parser


def _add_diff(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = what.add_parser(
        "diff",
        help="two profiles or captures side by side",
        description="Show where two clients differ, each a profile or a capture.",
        epilog=_DIFF_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("a", metavar="A", help="name, TOML file or capture")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--all", action="store_true", help="show what is equal, too")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    parser.set_defaults(run=run_diff)
    return parser


def _add_verify(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    from polytls.cli.capture import positive

    parser: argparse.ArgumentParser = what.add_parser(
        "verify",
        help="compare what the engine really sends with what a profile promises",
        description="Connect with profiles, and compare what arrives with the real client.",
        epilog=_VERIFY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="of profiles; none: all of them")
    parser.add_argument("--against", type=Path, metavar="DIR", help="captures of the real clients, NAME.json")
    parser.add_argument(
        "--connections",
        type=positive,
        default=8,
        metavar="N",
        help="with each profile; freshness needs 8 (8)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each profile")
    parser.set_defaults(run=run_verify)
    return parser


def run_list(args: argparse.Namespace) -> int:
    """Print one line for each profile. Raises `UserError`."""
    settings, catalog = load_catalog(args)
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

    _, catalog = load_catalog(args)
    spec = catalog.require(args.name, source="command line", key="NAME")
    print(as_toml(spec), end="")
    return 0


def run_learn(args: argparse.Namespace) -> int:
    """Write the profiles of captured clients. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.cli import learn

    return learn.run(args, load_catalog(args)[1])


def run_diff(args: argparse.Namespace) -> int:
    """Print two clients side by side. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.cli import compare

    return compare.run_diff(args, load_catalog(args)[1])


def run_verify(args: argparse.Namespace) -> int:
    """Print a line for each profile. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.cli import compare

    return compare.run_verify(args, load_catalog(args)[1])


def load_catalog(args: argparse.Namespace) -> tuple[Settings, Catalog]:
    """The profiles of --config and --profiles, and the built-in ones. Raises `UserError`."""
    from polytls.config import load_settings
    from polytls.profiles import Catalog

    given = {} if args.profiles is None else {"profiles.directory": str(args.profiles)}
    settings = load_settings(args.config, os.environ, given).settings
    return settings, Catalog.of_settings(settings)
