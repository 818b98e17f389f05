"""Whether the engine sends what a profile promises: real connections, looked at where they arrive.

Theory of operation
-------------------
A `Bench` is an engine, a `CaptureServer` on a free port of 127.0.0.1, and between them nothing. `verify`
has the engine connect several times with one profile, TLS to its end, and compares what arrived with

* the captures of the real client, where there are some (a *golden*);
* else the profile's own file, `polytls.capture.expected`: then it is the engine that is verified, not the
  file;
* nothing, for profiles by knobs: they promise no bytes.

Beside that, what has to be fresh is (`polytls.capture.freshness`), and the handshake has to succeed.

Some goldens are of imitations of a browser, and the profile follows the real one. Where what was sent is to
the last byte what the file says, and the golden alone has it otherwise, the verdict is `AS_DEFINED`, with
what differs: it is for people to judge, and no failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from polytls.capture.certificates import Contexts, throw_away_root
from polytls.capture.expected import HOST, expected_normal
from polytls.capture.freshness import stale
from polytls.capture.server import CaptureServer
from polytls.engine import Accepted, ClientContext, Engine, SocketAddress
from polytls.errors import ProxyError
from polytls.fingerprint.normal import difference, normalise
from polytls.settings import Address
from polytls.wire.client_hello import HelloError

if TYPE_CHECKING:
    from typing_extensions import Self

    from polytls.capture.goldens import Golden
    from polytls.capture.report import Visit
    from polytls.engine import Stream
    from polytls.profiles.spec import HelloSpec
    from polytls.wire.client_hello import ClientHello

CONNECTIONS = 8
"""For each profile: as many as it takes to judge every GREASE value (`freshness.MIN_FOR_ONE_PLACE`)."""

_STEP_SECONDS = 20.0  # of anything on one machine; only what hangs gets there
_LOCAL = "127.0.0.1"


class Verdict(Enum):
    """What came of a comparison; the value is the word that is printed."""

    DIFFERS = "differs"
    UNCHECKED = "not compared"
    AS_DEFINED = "as defined"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Verified:
    """One profile's result. `reference` says in words what was compared with; `differences` has a sentence
    for each (with `AS_DEFINED`: what the imitation has otherwise)."""

    profile: str
    verdict: Verdict
    reference: str
    connections: int
    differences: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return {
            "profile": self.profile,
            "verdict": self.verdict.value,
            "reference": self.reference,
            "connections": self.connections,
            "differences": list(self.differences),
        }


class Bench:
    """An engine and a capture server, connected. An async context manager, on one event loop."""

    def __init__(self) -> None:
        self._exits = contextlib.AsyncExitStack()
        self._visits: asyncio.Queue[Visit | str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            server = CaptureServer(
                self._visits.put_nowait,
                contexts=Contexts(await asyncio.to_thread(throw_away_root), fallback=HOST),
                on_failure=lambda _client, sentence: self._visits.put_nowait(sentence),
            )
            exits.push_async_callback(server.stop)
            self._port = (await server.start(Address(_LOCAL, 0))).port
            self._engine = Engine.start(threads=1)
            exits.push_async_callback(self._engine.close)
            self._near = await self._stream(exits)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._exits.aclose()

    async def _stream(self, exits: contextlib.AsyncExitStack) -> Stream:
        """A stream of the engine's for connections to begin beside: it makes none out of nothing."""
        accepted: asyncio.Queue[Accepted] = asyncio.Queue()
        listener = self._engine.listen(
            Address(_LOCAL, 0),
            backlog=1,
            head_limit=64,
            head_timeout=_STEP_SECONDS,
            on_accept=accepted.put_nowait,
        )
        _, self._near_client = await asyncio.open_connection(_LOCAL, listener.address.port)
        exits.callback(self._near_client.transport.abort)
        self._near_client.write(b"\r\n\r\n")
        found = await asyncio.wait_for(accepted.get(), _STEP_SECONDS)
        listener.close()
        exits.callback(found.stream.close)
        return found.stream

    async def visits(self, spec: HelloSpec, count: int) -> tuple[list[Visit], list[str]]:
        """What arrived on `count` connections with a profile, none of them resumed, and what went wrong.

        Raises `EngineError` for a profile that the engine does not take.
        """
        context = ClientContext(spec, None, verify_chain=False, verify_host=False)
        found: list[Visit] = []
        problems: dict[str, None] = {}
        for _ in range(count):
            problem = await self._visit(context, spec)
            if problem is not None:
                problems[problem] = None
            try:
                seen = await asyncio.wait_for(self._visits.get(), _STEP_SECONDS)
            except asyncio.TimeoutError:
                seen = f"nothing arrived in {_STEP_SECONDS:g} s"
            if isinstance(seen, str):
                problems[seen] = None
            else:
                found.append(seen)
        return found, list(problems)

    async def _visit(self, context: ClientContext, spec: HelloSpec) -> str | None:
        """One connection, to the end of its handshake; what went wrong."""
        address = SocketAddress(_LOCAL, self._port)
        connected = await self._engine.connect(self._near, [address], timeout=_STEP_SECONDS)
        stream = connected.stream
        try:
            alpn = [name.encode("latin-1") for name in spec.alpn]
            await stream.connect_tls(context, host=HOST, port=self._port, alpn=alpn, timeout=_STEP_SECONDS)
        except ProxyError as problem:
            return f"the handshake failed: {problem.detail}"
        finally:
            stream.close()
        return None


async def verify(
    bench: Bench, spec: HelloSpec, goldens: Sequence[Golden] = (), *, connections: int = CONNECTIONS
) -> Verified:
    """Connect with a profile and judge what arrived. Raises `EngineError`, or `HelloError` for a golden that
    cannot be compared with."""
    visits, problems = await bench.visits(spec, connections)
    return judge(spec, [visit.hello for visit in visits], goldens, problems)


def judge(
    spec: HelloSpec, sent: Sequence[ClientHello], goldens: Sequence[Golden], problems: Sequence[str] = ()
) -> Verified:
    """The verdict over hellos that were sent. Raises `HelloError` for a golden that is no client's."""
    reference = ", ".join(golden.name for golden in goldens)
    if not reference:
        reference = "its own definition" if spec.exact is not None else "nothing: it is defined by knobs"
    if not sent:
        return Verified(spec.name, Verdict.DIFFERS, reference, 0, (*problems, "no hello arrived"))
    found = [*problems, *stale(sent)]
    try:
        actual = normalise(sent)
    except HelloError as problem:  # "not one client's", "malformed": of ours
        return Verified(spec.name, Verdict.DIFFERS, reference, len(sent), (*found, str(problem)))
    own: list[str] = []
    if spec.exact is not None:
        own = difference(expected_normal(spec.exact, host=HOST.encode()), actual)
    elif not goldens:
        verdict = Verdict.DIFFERS if found else Verdict.UNCHECKED
        return Verified(spec.name, verdict, reference, len(sent), tuple(found))
    if not goldens or own:
        found += own
    theirs: list[str] = []
    for golden in goldens:
        differences = difference(normalise(golden.hellos), actual)
        real = not golden.imitation or spec.exact is None or own
        (found if real else theirs).extend(differences)
    found, theirs = list(dict.fromkeys(found)), list(dict.fromkeys(theirs))
    verdict = Verdict.DIFFERS if found else Verdict.AS_DEFINED if theirs else Verdict.EXACT
    return Verified(spec.name, verdict, reference, len(sent), tuple(found or theirs))
