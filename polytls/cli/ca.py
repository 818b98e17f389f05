"""``polytls ca``: the root CA that clients must trust in MITM mode."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.cli.configured import add_config
from polytls.errors import UserError

if TYPE_CHECKING:
    from polytls.pki.root import RootCA
    from polytls.settings import Settings

_EPILOG = """\
examples:
  polytls ca show
  polytls ca export --out root.pem
  polytls ca export --der --out root.crt         # what Windows and Android ask for

The root CA is made by the first `polytls serve`. Whoever has its private key can impersonate every site
to whoever trusts the certificate: the key stays where it is, and is never exported.
"""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "ca",
        help="show or export the root CA",
        description="The root CA whose certificate clients must trust in MITM mode.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    show = what.add_parser("show", help="where it is, its fingerprint and validity", allow_abbrev=False)
    show.set_defaults(run=run_show)
    export = what.add_parser("export", help="write its certificate", allow_abbrev=False)
    export.add_argument("--der", action="store_true", help="DER instead of PEM")
    export.add_argument("--out", type=Path, metavar="FILE", help="write to FILE instead of stdout")
    export.set_defaults(run=run_export)
    for each in (show, export):
        add_config(each, "configuration (TOML) that names it")
        each.add_argument("--ca-dir", type=Path, metavar="DIR", help="the directory it is in (ca)")


def run_show(args: argparse.Namespace) -> int:
    """Print what there is to know about the root CA. Raises `UserError`."""
    settings, root = _load(args)
    certificate = settings.certificate
    print(f"certificate  {certificate.ca_cert_path}")
    print(f"private key  {certificate.ca_key_path}")
    print(f"subject      {root.subject}")
    print(f"valid        {root.not_before:%Y-%m-%d} to {root.not_after:%Y-%m-%d}")
    print(f"SHA-256      {root.fingerprint_sha256}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write the certificate to a file or to stdout. Raises `UserError`, OSError."""
    if args.der and args.out is None and sys.stdout.isatty():
        raise UserError("DER is binary and not for a terminal: add --out FILE")
    _, root = _load(args)
    data = _der(root) if args.der else root.certificate_pem
    if args.out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        args.out.write_bytes(data)
        print(f"{args.out}: SHA-256 {root.fingerprint_sha256}", file=sys.stderr)
    return 0


def _load(args: argparse.Namespace) -> tuple[Settings, RootCA]:
    from polytls.cli.serve import settings_for
    from polytls.pki.passphrase import read_passphrase
    from polytls.pki.root import load

    settings = settings_for(args)
    certificate = settings.certificate
    passphrase = read_passphrase(
        certificate.ca_key_passphrase_env, certificate.ca_key_passphrase_file, os.environ
    )
    return settings, load(certificate.ca_key_path, certificate.ca_cert_path, passphrase)


def _der(root: RootCA) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return root.certificate.public_bytes(Encoding.DER)
