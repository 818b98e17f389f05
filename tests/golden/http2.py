"""Takes the HTTP/2 first flights in `http2/`: python -m tests.golden.http2 [NAME …], from the root.

Theory of operation
-------------------
Every installed client that offers h2 (`drivers`) connects to a `CaptureServer` a few times, which completes
TLS and answers one request. What it sent before and with that request is its first flight: frames in order,
and the order of the pseudo-header fields. A client's flights are all alike, or the file is not written.

The hellos are in `clients/`; this is kept apart, so that either can be taken again without the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytls.capture.certificates import Contexts, root_in
from polytls.capture.server import CaptureServer
from polytls.settings import Address
from tests.golden.drivers import Client, Visit, clients
from tests.golden.recorder import HOST

if TYPE_CHECKING:
    from polytls.capture.report import Visit as Seen

FLIGHTS = Path(__file__).parent / "http2"
TAKEN = 3
"""Of each client: enough to see that nothing in a flight varies."""


class _Seen:
    """What arrived so far, for a driver on another thread to wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.flights: list[dict[str, Any]] = []

    def put(self, seen: Seen) -> None:
        with self._changed:
            if seen.http2 is not None and seen.http2.get("pseudo_headers"):
                self.flights.append(dict(seen.http2))
            self._changed.notify_all()

    def enough(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.flights), seconds)


async def take(client: Client, directory: Path) -> dict[str, Any] | None:
    """The first flight of a client's first request; None where it spoke no HTTP/2.

    What a browser asks for next (a picture, by itself) has another priority.
    """
    seen = _Seen()
    contexts = Contexts(root_in(directory, "root.key", "root.pem", None), fallback=HOST)
    server = CaptureServer(seen.put, contexts=contexts, on_failure=lambda _client, _sentence: None)
    port = (await server.start(Address("127.0.0.1", 0))).port
    try:
        visit = Visit(port, 1, directory / "root.pem", directory, seen.enough)
        await asyncio.to_thread(client.visit, visit)
    finally:
        await server.stop()
    return seen.flights[0] if seen.flights else None


def document(client: Client, flights: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The file's content."""
    return {
        "name": client.name,
        "client": client.version,
        "imitation": client.imitation,
        "captured": datetime.now(timezone.utc).date().isoformat(),
        "taken": len(flights),
        "http2": flights[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Capture the HTTP/2 first flights of the clients installed here."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a client's name; none: all of them")
    parser.add_argument("--directory", type=Path, default=FLIGHTS, help="where the files go")
    options = parser.parse_args(arguments)
    options.directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for client in clients():
            if options.names and client.name not in options.names:
                continue
            taken = [asyncio.run(take(client, Path(name))) for _ in range(TAKEN)]
            flights = [flight for flight in taken if flight is not None]
            alike = all(flight == flights[0] for flight in flights)
            failed += not alike
            print(f"{client.name:24} {len(flights)} {flights[0]['akamai'] if flights else 'no HTTP/2'}")
            if not alike:
                print(f"{client.name}: its flights differ: {flights}", file=sys.stderr)
            elif flights:
                text = json.dumps(document(client, flights), indent=1) + "\n"
                (options.directory / f"{client.name}.json").write_text(text, "utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
