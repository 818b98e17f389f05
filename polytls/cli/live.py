"""Capturing on the command line: who connects, for `polytls capture` and `profiles learn`.

Apart from the verbs' own modules, which are imported to make the parser and must not bring asyncio along.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from polytls import __version__
from polytls.capture.certificates import Contexts, root_in, throw_away_root
from polytls.capture.server import CaptureServer, ListenError
from polytls.cli.serve import CERT_NAME, KEY_NAME
from polytls.config.endpoints import listen_address as parse_address
from polytls.errors import PolytlsError, UserError
from polytls.profiles.wording import WrongValueError

if TYPE_CHECKING:
    from polytls.capture.report import Visit
    from polytls.settings import Address


_GRACE_SECONDS = 1.0
"""For the last client to read its answer and say goodbye."""


def run_capture(args: argparse.Namespace) -> int:
    """`polytls capture`. Raises `UserError`, `PolytlsError`, OSError."""
    address = listen_address(args.listen)
    contexts = contexts_for(args.ca_dir, address) if args.tls else None
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)
    asyncio.run(_capture(args, address, contexts))
    return 0


async def visits(address: Address, contexts: Contexts | None) -> AsyncGenerator[Visit, None]:
    """Who connects, until SIGINT or SIGTERM. No ClientHello: a line on stderr. Raises `PolytlsError`."""
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
        await server.stop(_GRACE_SECONDS)


def contexts_for(ca_dir: Path | None, address: Address) -> Contexts:
    """The certificates to show. Raises `CAError`."""
    root = throw_away_root() if ca_dir is None else root_in(ca_dir, KEY_NAME, CERT_NAME, None)
    return Contexts(root, fallback=address.host)


def listen_address(text: str) -> Address:
    """An option's address. Raises `UserError`."""
    try:
        return parse_address(text)
    except WrongValueError as problem:
        raise UserError(f"command line: --listen: {problem}") from None


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


def _announce(address: Address, contexts: Contexts | None) -> None:
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
