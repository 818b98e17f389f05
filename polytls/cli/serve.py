"""``polytls serve``: run the proxy until it is told to stop.

Options are the last layer of the configuration: each sets one key of the file, over the environment, over
``--config``. Without it, and without POLYTLS_CONFIG, no file is read.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.cli.configured import add_config

if TYPE_CHECKING:
    from polytls.settings import Address, Settings
    from polytls.started import ListenError, Started

KEY_NAME = "private.key"
CERT_NAME = "certificate.pem"
"""What the two files of a root CA are called in a --ca-dir."""

_EPILOG = """\
examples:
  polytls serve
  polytls serve --config config/polytls.toml
  polytls serve --mode passthrough --listen '[::1]:3128'
  polytls serve --profile safari --resolve origin.lab.test:127.0.0.1:8443 --upstream-ca-file lab.pem

then:
  curl --cacert ca/certificate.pem -x http://127.0.0.1:8080 https://example.com/
  curl ... --proxy-header 'X-PolyTLS-Upstream-Profile: firefox' https://example.com/

One line for each tunnel goes to stdout, everything else to stderr. Ctrl-C or SIGTERM drains: no
new tunnels, open ones get the drain time to end; a second one ends them at once. SIGHUP has the
configuration read again: new tunnels go by it if all of it is right, and nothing changes if not.

exit codes: 0 stopped by a signal, 1 could not run (address in use), 2 wrong option or configuration
"""

MODES = {"mitm": True, "passthrough": False}

# Option (as argparse names it) -> key of the configuration. Two are not one to one: --mode and --ca-dir.
_KEYS = {
    "listen": "proxy.listen.address",
    "profile": "proxy.upstream.default_profile",
    "upstream_ca_file": "proxy.upstream.ca_file",
    "upstream_insecure_skip_verify": "proxy.upstream.insecure_skip_verify",
    "resolve": "proxy.upstream.resolve",
    "sni": "proxy.mitm.sni",
    "alpn": "proxy.mitm.alpn",
    "drain_timeout": "proxy.timeouts.drain",
    "threads": "engine.threads",
    "workers": "engine.workers",
    "log_format": "log.format",
    "profiles": "profiles.directory",
}


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "serve",
        help="run the proxy",
        description="Run the proxy. Without options: MITM mode on 127.0.0.1:8080, root CA in ./ca.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_config(parser, "configuration (TOML), instead of POLYTLS_CONFIG; options go over it")
    add("--listen", metavar="ADDR", help="IPV4:PORT or [IPV6]:PORT; port 0: any free one (127.0.0.1:8080)")
    add("--mode", choices=tuple(MODES), help="terminate TLS, or relay it untouched (mitm)")
    add("--profile", metavar="NAME", help="upstream profile of tunnels that ask for none (default)")
    add("--profiles", metavar="DIR", help="profile files, NAME.toml, beside the built-in profiles")
    add("--ca-dir", type=Path, metavar="DIR", help=f"root CA: {KEY_NAME} and {CERT_NAME} in DIR (ca)")
    add("--upstream-ca-file", metavar="F", help="PEM certificates to trust upstream, besides the system's")
    add(
        "--upstream-insecure-skip-verify",
        action="store_true",
        default=None,
        help="do not verify upstream certificates: for the lab only",
    )
    add(
        "--resolve",
        action="append",
        metavar="NAME:ADDR",
        help="dial NAME, or *.NAME, at ADDR (IPV4, [IPV6], each with an optional :PORT); repeatable",
    )
    add("--sni", choices=("accept-absent", "require"), help="a hello without server name (accept-absent)")
    add("--alpn", choices=("narrow", "strict"), help="offer upstream what both speak, or the profile's list")
    add("--drain-timeout", metavar="S", help="seconds that open tunnels get when the proxy stops (10)")
    add(
        "--threads",
        metavar="N",
        help="loop threads of the engine in each worker; 0: one per core but one (0)",
    )
    add("--workers", metavar="N", help="processes that share the address (1)")
    add("--log-format", choices=("text", "json"), help="of the line for each tunnel (text)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve. Raises `UserError`."""
    # What is imported stays, and looking through it time and again takes a twentieth of the start. The
    # collector is enabled when the proxy listens.
    gc.disable()
    try:
        return _serve(args)
    finally:
        gc.enable()


def _serve(args: argparse.Namespace) -> int:
    from polytls.config import load_settings
    from polytls.started import NOT_BUILT, ListenError

    # Until it is listened to: it must not end what is only about to start.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    read = partial(load_settings, args.config, os.environ, overrides(args))
    loaded = read()
    try:
        # What does not serve itself loads no engine.
        if loaded.settings.engine.workers > 1:
            gc.enable()
            from polytls.workers import supervise as serve
        else:
            from polytls.program import run as serve
    except ModuleNotFoundError as error:
        if error.name != "polytls.engine._native":
            raise
        print(f"polytls: error: {NOT_BUILT}", file=sys.stderr)
        return 1
    try:
        serve(loaded.settings, origins=loaded.origins, announce=announce, reread=read)
    except ListenError as error:
        print(f"polytls: error: {_advice(error)}", file=sys.stderr)
        return 1
    return 0


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """What the options set, by key path."""
    found: dict[str, object] = {}
    for option, key in _KEYS.items():
        value = getattr(args, option, None)
        if value is not None:
            found[key] = value
    if getattr(args, "mode", None) is not None:
        found["proxy.mitm.enabled"] = MODES[args.mode]
    if args.ca_dir is not None:
        found["proxy.certificate.ca_key_path"] = str(args.ca_dir / KEY_NAME)
        found["proxy.certificate.ca_cert_path"] = str(args.ca_dir / CERT_NAME)
    return found


def announce(started: Started) -> None:
    """Say on stderr where the proxy is and how to use it. Nobody has to listen."""
    with contextlib.suppress(OSError):
        print(announcement(started), file=sys.stderr, flush=True)


def announcement(started: Started) -> str:
    """What is said at the start, several lines. The curl lines work as they are printed."""
    from polytls import __version__

    settings = started.settings
    threads = "1 thread" if started.threads == 1 else f"{started.threads} threads"
    if started.workers > 1:
        threads = f"{started.workers} workers, {threads} each"
    url = f"http://{reachable(started.address)}"
    lines = [f"PolyTLS {__version__}: {settings.mode.value} on http://{started.address}, {threads}"]
    curl = ["curl", "-x", url, "https://example.com/"]
    if started.root_fingerprint is not None:
        certificate = str(settings.certificate.ca_cert_path)
        lines.append(f"  root CA      {certificate}")
        lines.append(f"  SHA-256      {started.root_fingerprint}")
        lines.append(f"  profile      {settings.upstream.default_profile}")
        curl[1:1] = ["--cacert", certificate]
    lines.append(f"  try          {shlex.join(curl)}")
    if started.root_fingerprint is not None:
        lines.append("  other hello  add --proxy-header 'X-PolyTLS-Upstream-Profile: firefox'")
    lines += [f"  warning      {warning}" for warning in started.warnings]
    return "\n".join(lines)


def reachable(address: Address) -> Address:
    """The address as a client on this machine may use it: "any" is no address to connect to."""
    from dataclasses import replace

    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host)
    return address if local is None else replace(address, host=local)


def _advice(error: ListenError) -> str:
    address = error.address
    match error.errno:
        case errno.EADDRINUSE:
            return f"{address} is in use; stop what listens there, or choose another address with --listen"
        case errno.EADDRNOTAVAIL:
            return f"{address} is no address of this machine; choose one with --listen"
        case errno.EACCES:
            return f"{address} may not be used by this user; ports below 1024 need a privilege"
        case _:
            return str(error)


def settings_for(args: argparse.Namespace) -> Settings:
    """The settings that verbs with --config and, maybe, --ca-dir go by. Raises `UserError`."""
    from polytls.config import load_settings

    return load_settings(args.config, os.environ, overrides(args)).settings
