"""``polytls profiles learn``: captured ClientHellos become profiles."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.capture.clients import Client, clients_of
from polytls.capture.from_text import learn_text
from polytls.capture.pcap import CaptureError
from polytls.capture.records import CapturedHello
from polytls.capture.sources import clients_from, text_in
from polytls.cli.fingerprint import read_stdin
from polytls.cli.live import contexts_for, listen_address, visits
from polytls.errors import UserError
from polytls.profiles import exact_toml, http2_toml
from polytls.profiles.entries import RESERVED
from polytls.profiles.http2 import H2, FlightError
from polytls.profiles.http2_learn import learn_http2
from polytls.profiles.learn import learn_parsed
from polytls.profiles.parse import parse_profile
from polytls.profiles.show import as_toml
from polytls.profiles.spec import canonical_name
from polytls.profiles.wording import shown
from polytls.wire.client_hello import HelloError
from polytls.wire.iana import ExtensionType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytls.profiles import Catalog

LIVE_COUNT = 4
"""Connections to learn from where --count does not say: two tell whether a client permutes, four draw most
of what is drawn."""

_CONTINUED = "\n#   "


@dataclass(frozen=True, slots=True)
class _Profile:
    """One that was learned, and its text."""

    name: str
    toml: str


def run(args: argparse.Namespace, catalog: Catalog) -> int:
    """Learn, and write. Raises `UserError`, `PolytlsError`, OSError."""
    name = canonical_name(args.name)
    if name is None:
        raise UserError(
            f"command line: --name: {args.name!a} is not a profile name; allowed: 1 to 64 letters, digits,"
            " '.', '_', '-', the first a letter or digit"
        )
    if name in RESERVED:
        raise UserError(f"command line: --name: {shown(name)} {RESERVED[name]}")
    if (args.source is None) == (args.listen is None):
        raise UserError("learn from either a SOURCE or, with --listen ADDR, from who connects")
    if args.listen is None and (args.count is not None or args.ca_dir is not None):
        raise UserError("--count and --ca-dir are for --listen alone")
    read = cache(read_stdin)  # it is there once
    text = None if args.source is None else text_in(args.source, read)
    if text is not None:
        _write(args.out, [_learned_from_text(args, name, text, catalog)])
        return 0
    if args.base is not None:
        raise UserError("--base is for JA3 and JA4_r texts alone: a capture tells all of its client")
    source = f"connections to {args.listen}" if args.source is None else _shown(args.source)
    clients = asyncio.run(_live(args)) if args.source is None else clients_from(args.source, read)
    names = [name] if len(clients) == 1 else [f"{name}-{number}" for number in range(1, len(clients) + 1)]
    if len(clients) > 1 and not _is_directory(args.out):
        named = "; ".join(map(str, clients))
        raise CaptureError(
            f"{source}: holds {len(clients)} clients ({named}); --out DIR/ writes a profile of each"
        )
    today = datetime.now(timezone.utc).date().isoformat() if args.source is None else ""
    taken = [_taken(each, catalog) for each in names]
    profiles = [_learned(*one, source, today) for one in zip(names, clients, taken, strict=True)]
    _write(args.out, profiles)
    return 0


async def _live(args: argparse.Namespace) -> tuple[Client, ...]:
    """Who connects, TLS completed so that clients behave as always."""
    address = listen_address(args.listen)
    contexts = await asyncio.to_thread(contexts_for, args.ca_dir, address)
    found: list[CapturedHello] = []
    async with contextlib.aclosing(visits(address, contexts)) as arriving:
        async for visit in arriving:
            found.append(CapturedHello(visit.hello, visit.raw, visit.client, http2=visit.http2))
            print(f"polytls: {visit.client}: {len(found)} of {args.count or LIVE_COUNT}", file=sys.stderr)
            if len(found) == (args.count or LIVE_COUNT):
                break
    if not found:
        raise CaptureError("nothing was captured: it was ended before a client connected")
    return clients_of(found)


def _taken(name: str, catalog: Catalog) -> tuple[str, ...]:
    """What is to be said of a name in use."""
    spec = catalog.find(name)
    if spec is None:
        return ()
    problem = f"{shown(name)} already names a profile of {spec.source}: in a directory of profiles it needs"
    return (f"{problem} another name, or override = true over a built-in one",)


def _learned_from_text(args: argparse.Namespace, name: str, text: str, catalog: Catalog) -> _Profile:
    """What the text does not tell comes from a base; all of that is said, on stderr as well.

    Raises `CaptureError` for a text that no hello can have.
    """
    base = None if args.base is None else catalog.require(args.base, source="command line", key="--base")
    learned = learn_text(text, catalog.specs(), base)
    form, filled = learned.told.form, learned.base
    notes = [*learned.notes, *_taken(name, catalog)]
    table: dict[str, object] = {
        "description": f"Learned from a {form} text, over {filled.name}",
        "captured_from": f"a {form} text",
        "hello": exact_toml.as_table(learned.hello),
    }
    if not filled.resumption:
        table["session_resumption"] = False
    if filled.http2 is not None and H2 in learned.hello.protocols(ExtensionType.ALPN):
        table["http2"] = http2_toml.as_table(filled.http2)
        notes.append(f"how it begins HTTP/2 is not told either, and is as {filled.name} does")
    for note in notes:
        print(f"polytls: {note}", file=sys.stderr)
    about = [f"learned from {form} {learned.told.text}", *notes]
    return _profile(name, table, about, f"a {form} text")


def _profile(name: str, table: dict[str, object], about: Sequence[str], source: str) -> _Profile:
    spec = parse_profile(name, table, None, source)
    comments = "".join(f"# {_CONTINUED.join(note.splitlines())}\n" for note in about)
    return _Profile(name, comments + as_toml(spec))


def _learned(name: str, client: Client, taken: Sequence[str], source: str, date: str) -> _Profile:
    """`taken` is what is to be said of the name; `date` is when it was captured, or empty.

    Raises `CaptureError`: it names what cannot be sent.
    """
    try:
        learned = learn_parsed(client.hellos)
    except HelloError as problem:
        raise CaptureError(f"{source}: {client}: {problem}") from None
    table: dict[str, object] = {
        "description": f"Learned: {client.ja4}",
        "captured_from": source,
        **({"captured_on": date} if date else {}),
        "hello": exact_toml.as_table(learned.hello),
    }
    notes = list(learned.notes)
    if H2 in learned.hello.protocols(ExtensionType.ALPN):
        http2, told = _http2(client)
        table |= http2
        notes += told
    if client.hellos[0].sni is None:
        notes.append("it names no server, as clients do that are given an address: capture it with a name")
    if len(client.captured) == 1:
        notes.append("there was one sample: the order of extensions is taken to be fixed")
    about = [f"learned from {client}", *notes, *taken]
    return _profile(name, table, about, source)


def _http2(client: Client) -> tuple[dict[str, object], Sequence[str]]:
    """The ``[http2]`` table, where the capture has a first flight, and what is to be said of it."""
    if not client.http2:
        return {}, ("how it begins HTTP/2 is not in the capture; one by --listen has it",)
    try:
        learned = learn_http2(client.http2)
    except FlightError as problem:
        return {}, (f"its HTTP/2 first flight was left out: {problem.key} {problem}",)
    return {"http2": http2_toml.as_table(learned.http2)}, learned.notes


def _write(out: str | None, profiles: Sequence[_Profile]) -> None:
    if out is None:
        for profile in profiles:
            print(profile.toml, end="")
        return
    directory = _is_directory(out)
    if directory:
        Path(out).mkdir(parents=True, exist_ok=True)
    for profile in profiles:
        path = Path(out) / f"{profile.name}.toml" if directory else Path(out)
        path.write_text(profile.toml, encoding="utf-8")
        print(f"{path}: {profile.name}", file=sys.stderr)


def _is_directory(out: str | None) -> bool:
    return out is not None and (out.endswith("/") or Path(out).is_dir())


def _shown(source: str) -> str:
    """The file's name without its directory: profiles are given away."""
    name = "standard input" if source == "-" else Path(source).name
    return name if name.isprintable() else ascii(name)
