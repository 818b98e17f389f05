"""``polytls profiles diff`` and ``polytls profiles verify``: clients and promises compared."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polytls.cli.fingerprint import read_stdin
from polytls.errors import PolytlsError, UserError
from polytls.fingerprint.diff import compare
from polytls.fingerprint.normal import NormalHello, normalise
from polytls.profiles.http2 import FlightError
from polytls.profiles.http2_learn import learn_http2
from polytls.wire.client_hello import HelloError

if TYPE_CHECKING:
    from polytls.capture.clients import Client
    from polytls.capture.goldens import Goldens
    from polytls.capture.verify import Verified
    from polytls.profiles import Catalog, HelloSpec
    from polytls.profiles.http2 import Http2

_RED, _GREEN, _RESET = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def run_diff(args: argparse.Namespace, catalog: Catalog) -> int:
    """Print where A and B differ; 1 where they do. Raises `UserError`, `PolytlsError`, OSError."""
    if args.a == args.b == "-":
        raise UserError("standard input can be one of A and B, not both")
    (left, left_http2), (right, right_http2) = (_side(what, catalog) for what in (args.a, args.b))
    found = compare(args.a, left, args.b, right, (left_http2, right_http2))
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        print(found.as_text(width=width, colour=_colour(), everything=args.all), end="")
    return 0 if found.same else 1


def run_verify(args: argparse.Namespace, catalog: Catalog) -> int:
    """Print a line for each profile; 1 where one differs. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.capture.goldens import Goldens

    named = [catalog.require(name, source="command line", key="NAME") for name in args.names]
    specs = list(dict.fromkeys(named)) or list(catalog.specs())
    goldens = None if args.against is None else Goldens.in_directory(args.against)
    _require_engine()
    verdicts = asyncio.run(_verify(args, catalog, specs, goldens))
    if not args.json:
        told = ", ".join(f"{count} {word}" for word, count in verdicts.items())
        noun = "profile" if len(specs) == 1 else "profiles"
        print(f"polytls: {len(specs)} {noun}: {told}", file=sys.stderr)
    return 1 if verdicts["differs"] else 0


async def _verify(
    args: argparse.Namespace, catalog: Catalog, specs: Sequence[HelloSpec], goldens: Goldens | None
) -> Counter[str]:
    """Verify and print one after the other; how many there were of each verdict."""
    from polytls.capture.verify import Bench, verify

    verdicts: Counter[str] = Counter()
    width = max(len(spec.name) for spec in specs)
    async with Bench() as bench:
        for spec in specs:
            names = (spec.name, *catalog.aliases_of(spec))
            golden = goldens.of(names) if goldens is not None else ()
            try:
                verified = await verify(bench, spec, golden, connections=args.connections)
            except HelloError as problem:
                where = golden[0].name if golden else spec.name
                raise UserError(f"{where}: {problem}") from None
            verdicts[verified.verdict.value] += 1
            print(json.dumps(verified.as_dict()) if args.json else _line(verified, width), flush=True)
    return verdicts


def _line(verified: Verified, width: int) -> str:
    word = verified.verdict.value
    if _colour():
        colour = _RED if word == "differs" else _GREEN if word == "exact" else ""
        word = f"{colour}{word}{_RESET}" if colour else word
    told = verified.reference
    if verified.again:
        told += f"; also {', '.join(verified.again)}"
    line = f"{verified.profile:{width}}  {word}  ({told})"
    if verified.reason:
        return f"{line}  because {verified.reason}; the capture: {'; '.join(verified.differences)}"
    return f"{line}  {'; '.join(verified.differences)}" if verified.differences else line


def _side(what: str, catalog: Catalog) -> tuple[NormalHello, Http2 | None]:
    """What a name, a TOML file or a capture stands for. Raises `UserError`, `PolytlsError`, OSError."""
    from polytls.capture.sources import clients_from, one_client, profile_in

    spec = catalog.find(what) if what != "-" else None
    if spec is None and what.endswith(".toml"):
        spec = profile_in(Path(what), catalog)
    if spec is not None:
        return _normal_profile(spec), spec.http2
    if what != "-" and not Path(what).exists():
        if os.sep in what:
            raise UserError(f"{what}: there is no such file")
        catalog.require(what, source="command line", key="A, B")  # says which there are
    try:
        client = one_client(clients_from(what, read_stdin), what)
        return normalise(client.hellos), _flight(client)
    except HelloError as problem:
        raise UserError(f"{what}: {problem}") from None
    except FlightError as problem:
        raise UserError(f"{what}: its HTTP/2 first flight: {problem.key} {problem}") from None


def _flight(client: Client) -> Http2 | None:
    """Where the capture has one. Raises `FlightError`."""
    return learn_http2(client.http2).http2 if client.http2 else None


def _normal_profile(spec: HelloSpec) -> NormalHello:
    """An exact profile is what its file says; one by knobs is what the engine sends for it."""
    if spec.exact is not None:
        from polytls.capture.expected import HOST, expected_normal

        return expected_normal(spec.exact, host=HOST.encode())
    _require_engine()
    from polytls.capture.verify import CONNECTIONS, Bench

    async def sent() -> NormalHello:
        async with Bench() as bench:
            visits, problems = await bench.visits(spec, CONNECTIONS)
        if not visits:
            raise PolytlsError(f"{spec.name}: nothing was sent: {'; '.join(problems)}")
        return normalise([visit.hello for visit in visits])

    return asyncio.run(sent())


def _require_engine() -> None:
    try:
        import polytls.engine  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "polytls.engine._native":
            raise
        raise PolytlsError("the native engine is not built; build it with `make build`") from None


def _colour() -> bool:
    from polytls.telemetry.log import wants_colour

    return wants_colour(sys.stdout, os.environ)
