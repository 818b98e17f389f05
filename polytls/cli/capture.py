"""``polytls capture``: print the fingerprint of whatever connects."""

from __future__ import annotations

import argparse
from pathlib import Path

from polytls.errors import UserError

DEFAULT_ADDRESS = "127.0.0.1:8443"

_EPILOG = """\
examples:
  polytls capture                                     # then: curl https://127.0.0.1:8443/
  polytls capture --tls --ca-dir ca                   # clients that trust the proxy trust this as well
  polytls capture --tls --count 3 --save captures/
  polytls capture --json --count 1 | polytls fingerprint -

then, with --tls, for any name:
  curl -k --connect-to ::127.0.0.1:8443 https://www.example.com/

Without --tls a client is told handshake_failure after its ClientHello. With it the handshake is completed
and a request, by HTTP/1.1 or HTTP/2, is answered with the report of its own connection as JSON. No session
is ever resumed: every ClientHello is a first one. Ctrl-C ends it.

exit codes: 0 ended by a signal or by --count, 1 could not listen, 2 wrong option
"""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "capture",
        help="a server that prints the fingerprint of whatever connects",
        description="Listen, and print JA3, JA4 and more of every TLS client that connects.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_listen(parser, DEFAULT_ADDRESS)
    parser.add_argument(
        "--tls", action="store_true", help="complete the handshake, and answer with the report"
    )
    add_ca_dir(parser)
    parser.add_argument("--count", type=positive, metavar="N", help="end after N ClientHellos")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each ClientHello")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="also write each to a file of its own in DIR"
    )
    parser.set_defaults(run=run)


def add_listen(parser: argparse.ArgumentParser, default: str | None) -> None:
    """--listen, for every verb that captures."""
    usual = f" ({default})" if default else ""
    parser.add_argument(
        "--listen",
        metavar="ADDR",
        default=default,
        help=f"IPV4:PORT or [IPV6]:PORT; port 0: any free one{usual}",
    )


def add_ca_dir(parser: argparse.ArgumentParser) -> None:
    """--ca-dir, for every verb that completes handshakes."""
    parser.add_argument(
        "--ca-dir",
        type=Path,
        metavar="DIR",
        help="root CA of the server's certificates, made where there is none (one that nobody trusts)",
    )


def positive(text: str) -> int:
    """A number of things, at least one; for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace) -> int:
    """Capture until it is enough. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.cli import live

    if args.ca_dir is not None and not args.tls:
        raise UserError("--ca-dir is for certificates, which are shown with --tls alone: add --tls")
    return live.run_capture(args)
