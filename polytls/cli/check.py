"""``polytls check``: may the proxy start, and with ``--local``, is the one on this machine well?

Both read the configuration as ``serve`` does, and say one sentence for each thing they looked at. They write
nothing: a root CA that is not there yet is made by the first ``serve``, not here.

``--local`` is what a container engine asks every few seconds, so it is cheap: the native engine is not even
loaded. The listener is asked for more than a connection, which the kernel would grant on behalf of a
process that hangs: the client says at once that it will send nothing, and the proxy has to notice and
close its side. For the proxy that is a connection that closed without a byte: no tunnel, and no line in
the log. The metric `polytls.connections.unspoken` counts it.

Left out: whether upstream can be reached. An origin that is down is no reason to restart the proxy.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.cli.configured import add_config
from polytls.cli.serve import CERT_NAME, KEY_NAME, MODES, overrides, reachable
from polytls.errors import PolytlsError, UserError

if TYPE_CHECKING:
    from polytls.config import LoadedSettings
    from polytls.settings import Address, Settings

EXIT_OK = 0
EXIT_UNWELL = 1

ANSWER_SECONDS = 3.0
"""An event loop that is later than this keeps clients waiting, too."""
MAX_ANSWER_SECONDS = 600.0
"""What waits longer is no health check."""

_EPILOG = """\
examples:
  polytls check --config config/polytls.toml     before a start: would it work?
  polytls check --local                          while it runs: does it?

Of the options of `polytls serve` it has those above: what the others set, put into the file or into
the environment, which both read. No line of the log comes of it.

exit codes: 0 all is well, 1 something is not (the sentence says what), 2 wrong option
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, whether it is well, and a sentence about it."""

    check: str
    ok: bool
    text: str


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "check",
        help="would the proxy start, and is a running one well",
        description="Check the configuration, the profiles and the root CA before a start; with --local, the "
        "root CA and the listener of the proxy that runs on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--local", action="store_true", help="ask the proxy that runs here; for health checks")
    add("--json", action="store_true", help="one JSON object instead of a line for each finding")
    add("--timeout", type=_seconds, metavar="S", default=ANSWER_SECONDS, help="for the listener's answer (3)")
    add_config(parser, "configuration (TOML) of the proxy")
    add("--listen", metavar="ADDR", help="where it listens")
    add("--mode", choices=tuple(MODES), help="what it does with TLS; passthrough needs no CA")
    add("--profiles", metavar="DIR", help="profile files, NAME.toml, beside the built-in profiles")
    add("--ca-dir", type=Path, metavar="DIR", help=f"root CA: {KEY_NAME} and {CERT_NAME} in DIR (ca)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, and say whether all is well. What is wrong is a finding, not an error."""
    findings = list(_findings(args))
    well = all(finding.ok for finding in findings)
    if args.json:
        print(json.dumps({"ok": well, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print(f"{'ok' if finding.ok else 'failed':<6}  {finding.check:<13}  {finding.text}")
    return EXIT_OK if well else EXIT_UNWELL


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= MAX_ANSWER_SECONDS:
        raise ValueError
    return seconds


def _findings(args: argparse.Namespace) -> Iterator[Finding]:
    from polytls.config import load_settings
    from polytls.settings import Mode

    try:
        loaded = load_settings(args.config, os.environ, overrides(args))
    except UserError as error:  # without settings there is nothing else to look at
        yield Finding("configuration", False, str(error))
        return
    settings = loaded.settings
    yield Finding("configuration", True, f"{args.config or 'defaults'}, mode {settings.mode.value}")
    intercepts = settings.mode is Mode.MITM
    if args.local:
        if intercepts:
            yield _finding("root CA", partial(_root, settings))
        yield _finding("listener", partial(_listener, settings.listen.address, args.timeout))
        return
    yield _finding("profiles", partial(_profiles, loaded))
    if intercepts:
        yield _finding("upstream", partial(_upstream, loaded))
        if settings.upstream.ech:
            yield _finding("ECH", partial(_ech, loaded))
        yield _finding("root CA", partial(_root_to_be, settings))


class _UnwellError(PolytlsError):
    """A finding that is no error of anything else."""


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except PolytlsError as error:
        return Finding(check, False, str(error))


def _root(settings: Settings) -> str:
    """Load the root CA, as a start would. Raises `CAError`."""
    from polytls.pki.passphrase import read_passphrase
    from polytls.pki.root import load

    certificate = settings.certificate
    passphrase = read_passphrase(
        certificate.ca_key_passphrase_env, certificate.ca_key_passphrase_file, os.environ
    )
    root = load(certificate.ca_key_path, certificate.ca_cert_path, passphrase)
    return f"{certificate.ca_cert_path} signs until {root.not_after:%Y-%m-%d}"


def _root_to_be(settings: Settings) -> str:
    """Load the root CA, or see that a start can make one. Raises `CAError`, `_UnwellError`."""
    certificate = settings.certificate
    paths = (certificate.ca_key_path, certificate.ca_cert_path)
    if any(os.path.lexists(path) for path in paths):
        return _root(settings)
    for directory in {path.absolute().parent for path in paths}:
        place = next(above for above in (directory, *directory.parents) if above.exists())
        if not place.is_dir():
            raise _UnwellError(f"{place} is no directory, so that no root CA can be made in it")
        if not os.access(place, os.W_OK | os.X_OK):
            raise _UnwellError(f"{place} may not be written by this user, and no root CA can be made there")
    return f"{certificate.ca_cert_path} is not there yet; the first start makes it"


def _profiles(loaded: LoadedSettings) -> str:
    """Read every profile of one's own, and find the default. Raises `ProfileError`."""
    from polytls.profiles import MIRROR, Catalog

    settings = loaded.settings
    catalog = Catalog.of_settings(settings)
    default, key = settings.upstream.default_profile, "proxy.upstream.default_profile"
    if default.lower() != MIRROR:
        catalog.require(default, source=loaded.origins.get(key, settings.source), key=key)
    own = len(catalog.configured)
    return f"{default} is the default; {own or 'none'} of your own {'is' if own == 1 else 'are'} there"


def _upstream(loaded: LoadedSettings) -> str:
    """Load the roots that upstream is verified by. Raises `UserError`."""
    from polytls.engine import load_trust

    upstream = loaded.settings.upstream
    if upstream.insecure_skip_verify:
        return "certificates are not verified (insecure_skip_verify)"
    roots = load_trust(upstream.ca_file).num_roots
    if not roots:
        raise _UnwellError("no trusted root was found, so that every upstream is refused; set ca_file")
    return f"certificates are verified by {roots} roots"


def _ech(loaded: LoadedSettings) -> str:
    """Read the files of the rules. Raises `ConfigError`."""
    from polytls.config.ech import KEY, read_ech_rules

    settings = loaded.settings
    rules = settings.upstream.ech or ()
    read_ech_rules(rules, loaded.origins.get(KEY, settings.source))
    return f"{len(rules)} {'rule has configs' if len(rules) == 1 else 'rules have configs'} that can be used"


def _listener(listen: Address, seconds: float) -> str:
    """Have the proxy close a connection on which nothing is sent. Raises `_UnwellError`."""
    address = reachable(listen)
    if address.port == 0:
        raise _UnwellError("port 0 is another one at each start, and cannot be asked: set a port")
    started = time.monotonic()
    try:
        with socket.create_connection((address.host, address.port), timeout=seconds) as connection:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(max(0.001, seconds - (time.monotonic() - started)))
            said = connection.recv(1)
    except OSError as error:
        raise _UnwellError(f"{address} {_reason(error, seconds)}") from error
    if said:
        raise _UnwellError(f"{address} speaks first, so that something else than PolyTLS listens there")
    return f"{address} answers after {(time.monotonic() - started) * 1000:.0f} ms"


def _reason(error: OSError, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"does not answer within {seconds:g} s: the proxy hangs, or is overloaded"
    if error.errno == errno.ECONNREFUSED:
        return "refuses connections: the proxy does not run, or is stopping"
    return f"cannot be asked: {error.strerror or error}"
