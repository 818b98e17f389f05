"""Takes the captures in `clients/`: python -m tests.golden.capture [NAME …] (from the repository's root).

Theory of operation
-------------------
Every installed client (`drivers`) connects to a `Recorder` four times over: for first hellos, for second ones
after a HelloRetryRequest, for second ones after one with a cookie, and for a resumed session. Of each, many
are taken; what they have in common and what varies (`shape`) is computed over all of them, and only a few are
stored, since files in a repository should be small. What a client does not do is stored as an empty list.

A certificate authority is made for each run and forgotten with it. Nothing leaves 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.wire.client_hello import parse_client_hello
from polytls.wire.iana import ExtensionType
from tests.golden.drivers import Client, Visit, clients
from tests.golden.recorder import GROUPS, HOST, Answer, Recorder, SentHello
from tests.golden.shape import changes, describe, keys, numbers
from tests.peers.certificates import Authority

CLIENTS = Path(__file__).parent / "clients"
STORED_SAMPLES = 3
STORED_PAIRS = 1
PAIRS = 4
"""Taken of each kind of second hello: enough to see whether a place is fixed or permuted."""

_ATTEMPTS = 4
_PADDING = f"{ExtensionType.PADDING:04x}"  # comes and goes with the length

Connections = list[list[SentHello]]
Pair = tuple[SentHello, SentHello]
Outline = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Capture:
    """All that was taken of one client."""

    samples: list[SentHello]
    retry: list[Pair]
    retry_group: str | None
    cookie: list[Pair]
    cookie_group: str | None
    resumed: list[Pair]


@dataclass(frozen=True)
class Bench:
    """What a run has in common."""

    authority: Path
    certificate: Path
    directory: Path

    def take(
        self,
        client: Client,
        answer: Answer,
        times: int,
        enough: Callable[[Connections], bool],
        group: str | None = None,
    ) -> Connections:
        """Let the client come until it is enough, or it has had its chances."""
        with Recorder(answer, self.certificate, group) as recorder:
            for _ in range(_ATTEMPTS):
                before = len(recorder.connections)
                wait = lambda seconds: recorder.wait(enough, seconds)  # noqa: E731
                client.visit(Visit(recorder.port, times, self.authority, self.directory, wait))
                if enough(recorder.connections) or len(recorder.connections) == before:
                    break
            return recorder.connections


def capture(client: Client, bench: Bench) -> Capture:
    first = bench.take(client, Answer.FULL, client.samples, lambda seen: len(seen) >= client.samples)
    samples = [hellos[0] for hellos in first][: client.samples]
    known = {_outline(hello) for hello in samples}
    retry, retry_group = _retried(client, bench, Answer.RETRY, list(GROUPS), known)
    # A cookie alone first. RFC 8446 §4.1.4 allows that, but not every client knows.
    cookie, cookie_group = _retried(client, bench, Answer.COOKIE, [None, *GROUPS], known)
    again = bench.take(client, Answer.TICKETS, 2, lambda seen: bool(_resumed(seen)))
    return Capture(samples, retry, retry_group, cookie, cookie_group, _resumed(again))


def _retried(
    client: Client, bench: Bench, answer: Answer, groups: Sequence[str | None], known: set[Outline]
) -> tuple[list[Pair], str | None]:
    """The pairs, and the first of `groups` that makes the client come again."""
    for group in groups:
        seen = bench.take(client, answer, PAIRS, lambda seen: len(_pairs(seen, known)) >= PAIRS, group)
        if pairs := _pairs(seen, known):
            return pairs[:PAIRS], group
    return [], None


def _pairs(connections: Connections, known: set[Outline]) -> list[Pair]:
    """Both hellos of the connections that have two, and that begin like the samples.

    A browser that was hung up on a few times tries with less: Firefox leaves compress_certificate out.
    """
    found = [(hellos[0], hellos[1]) for hellos in connections if len(hellos) > 1]
    return [pair for pair in found if _outline(pair[0]) in known]


def _outline(hello: SentHello) -> Outline:
    """What no hello of a client varies in, its order aside: ciphers and extensions."""
    extensions = [key for key in keys(hello.parsed) if key != _PADDING]
    return numbers(hello.parsed.cipher_suites), tuple(sorted(extensions))


def _resumed(connections: Connections) -> list[Pair]:
    """The first full hello, and the first one that resumes."""
    full = [hellos[0] for hellos in connections if not _resumes(hellos[0])]
    again = [hellos[0] for hellos in connections if _resumes(hellos[0])]
    return [(full[0], again[0])] if full and again else []


def _resumes(hello: SentHello) -> bool:
    parsed = hello.parsed
    ticket = parsed.extension(ExtensionType.SESSION_TICKET)
    return parsed.extension(ExtensionType.PRE_SHARED_KEY) is not None or bool(ticket)


def document(client: Client, taken: Capture) -> dict[str, Any]:
    """The file's content."""
    records = [hello.records for hello in taken.samples]
    invariants, varies = describe(records)
    parsed = [parse_client_hello(sample) for sample in records]
    tls3, tls4 = ja3(parsed[0]), ja4(parsed[0])
    if len(seen := sorted({ja4(hello).ja4 for hello in parsed})) > 1:
        varies["ja4"] = seen
    return {
        "name": client.name,
        "client": client.version,
        "imitation": client.imitation,
        "captured": datetime.now(timezone.utc).date().isoformat(),
        "host": HOST,
        "ja3": tls3.ja3_hash,
        "ja3n": tls3.ja3n_hash,
        "ja4": tls4.ja4,
        "ja4_r": tls4.ja4_r,
        "ja4_o": tls4.ja4_o,
        "taken": len(records),
        "invariants": invariants,
        "varies": varies,
        "retry_group": taken.retry_group,
        "retry_changes": _changes(taken.retry),
        "retry_cookie_group": taken.cookie_group,
        "retry_cookie_changes": _changes(taken.cookie),
        "resumed_changes": _changes(taken.resumed),
        "samples": [sample.hex() for sample in records[:STORED_SAMPLES]],
        "retry": _stored(taken.retry),
        "retry_cookie": _stored(taken.cookie),
        "resumed": _stored(taken.resumed),
    }


def _changes(pairs: Sequence[Pair]) -> dict[str, list[Any]]:
    """Of each kind of change the values seen, once each."""
    seen: dict[str, list[Any]] = {}
    for first, second in pairs:
        found = changes(first.records, second.records)
        found["after_change_cipher_spec"] = second.after_change_cipher_spec
        for name, value in found.items():
            values = seen.setdefault(name, [])
            if value not in values:
                values.append(value)
    return seen


def _stored(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    return [
        {"first": first.records.hex(), "second": second.records.hex()}
        for first, second in pairs[:STORED_PAIRS]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Capture the ClientHellos of the clients installed here.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a client's name; none: all of them")
    parser.add_argument("--list", action="store_true", help="list the clients found, and end")
    parser.add_argument("--directory", type=Path, default=CLIENTS, help="where the files go")
    options = parser.parse_args(arguments)
    wanted = [client for client in clients() if not options.names or client.name in options.names]
    if options.list:
        for client in wanted:
            print(f"{client.name:24} {client.version}")
        return 0
    unknown = set(options.names) - {client.name for client in wanted}
    if unknown:
        parser.error(f"not installed here: {', '.join(sorted(unknown))} (--list names what is)")
    options.directory.mkdir(parents=True, exist_ok=True)
    missing = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = Path(name)
        authority = Authority(directory)
        bench = Bench(authority.pem, authority.issue(HOST), directory)
        for client in wanted:
            taken = capture(client, bench)
            missing += not taken.samples
            print(_line(client, taken), flush=True)
            if taken.samples:
                text = json.dumps(document(client, taken), indent=1) + "\n"
                (options.directory / f"{client.name}.json").write_text(text, "utf-8")
    return 1 if missing else 0


def _line(client: Client, taken: Capture) -> str:
    counts = [len(part) for part in (taken.samples, taken.retry, taken.cookie, taken.resumed)]
    return f"{client.name:24} first {counts[0]:2}  retry {counts[1]}  cookie {counts[2]}  resumed {counts[3]}"


if __name__ == "__main__":
    sys.exit(main())
