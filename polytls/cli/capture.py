"""``polytls capture``: print the fingerprint of whatever connects."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.errors import PolytlsError, UserError

if TYPE_CHECKING:
    from polytls.capture.certificates import Contexts
    from polytls.capture.report import Visit
    from polytls.settings import Address

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
    """Capture until it is enough. Raises `UserError`, `ListenError`, OSError."""
    if args.ca_dir is not None and not args.tls:
        raise UserError("--ca-dir is for certificates, which are shown with --tls alone: add --tls")
    address = listen_address(args.listen)
    contexts = contexts_for(args.ca_dir, address) if args.tls else None
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)
    asyncio.run(_capture(args, address, contexts))
    return 0


async def _capture(args: argparse.Namespace, address: Address, contexts: Contexts | None) -> None:
    number = 0
    async with contextlib.aclosing(visits(address, contexts)) as arriving:
        async for visit in arriving:
            print(visit.as_json() if args.json else visit.as_text() + "\n", flush=True)
            if args.save is not None:
                await asyncio.to_thread(_save, args.save, visit)
            number += 1
            if number == args.count:
                return


async def visits(address: Address, contexts: Contexts | None) -> AsyncGenerator[Visit, None]:
    """Who connects, until SIGINT or SIGTERM. No ClientHello: a line on stderr. Raises `PolytlsError`."""
    from polytls.capture.server import CaptureServer, ListenError

    queue: asyncio.Queue[Visit | None] = asyncio.Queue()
    server = CaptureServer(queue.put_nowait, contexts=contexts, on_failure=_say_failure)
    try:
        actual = await server.start(address)
    except ListenError as error:
        raise PolytlsError(f"{error}; choose another address with --listen") from None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, queue.put_nowait, None)
    try:
        _announce(actual, contexts)
        while (visit := await queue.get()) is not None:
            yield visit
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await server.stop()


def contexts_for(ca_dir: Path | None, address: Address) -> Contexts:
    """The certificates to show. Raises `CAError`."""
    from polytls.capture.certificates import Contexts, root_in, throw_away_root
    from polytls.cli.serve import CERT_NAME, KEY_NAME

    root = throw_away_root() if ca_dir is None else root_in(ca_dir, KEY_NAME, CERT_NAME, None)
    return Contexts(root, fallback=address.host)


def listen_address(text: str) -> Address:
    """An option's address. Raises `UserError`."""
    from polytls.config.endpoints import listen_address as parse
    from polytls.profiles.wording import WrongValueError

    try:
        return parse(text)
    except WrongValueError as problem:
        raise UserError(f"command line: --listen: {problem}") from None


def _announce(address: Address, contexts: Contexts | None) -> None:
    from polytls import __version__

    how = "completing TLS" if contexts is not None else "ClientHellos alone"
    lines = [f"PolyTLS {__version__}: capturing on {address}, {how}"]
    if contexts is not None:
        lines.append(f"  root CA      SHA-256 {contexts.root.fingerprint_sha256}")
    with contextlib.suppress(OSError):
        print("\n".join(lines), file=sys.stderr, flush=True)


def _say_failure(client: str, sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(f"polytls: {client}: {sentence}", file=sys.stderr, flush=True)


def _save(directory: Path, visit: Visit) -> None:
    """A new file: `0001-JA4.json`, or with the next number that is free. Raises OSError."""
    text = visit.as_json(indent=1) + "\n"
    number = len(list(directory.glob("[0-9]*.json")))
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            path = directory / f"{number:04}-{visit.as_dict()['ja4']}.json"
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            return
