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

A golden may also have what the client says when it is asked again (`polytls.capture.asking`): then so are
we, and what changes from the first hello to the second (`polytls.fingerprint.second`) is compared.

Some goldens are of imitations of a browser, and the profile follows the real one, as it says in its
``unlike_capture``. Where the first hello is to the last byte what the file says, and the imitation alone has
something otherwise, the verdict is `AS_DEFINED`, with what differs: it is for people to judge, and no
failure. A profile that gives no reason has to be what its golden is, imitation or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from polytls.capture.asking import GROUP_NAME, Asking, AskingServer, hellos_in
from polytls.capture.certificates import Contexts, throw_away_root
from polytls.capture.expected import HOST, expected_normal
from polytls.capture.freshness import stale
from polytls.capture.server import CaptureServer
from polytls.engine import Accepted, ClientContext, Engine, SocketAddress
from polytls.errors import ProxyError
from polytls.fingerprint import second
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
_REQUEST = b"GET / HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n\r\n"
_MAX_HEAD_BYTES = 1 << 12


class Verdict(Enum):
    """What came of a comparison; the value is the word that is printed."""

    DIFFERS = "differs"
    UNCHECKED = "not compared"
    AS_DEFINED = "as defined"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Verified:
    """One profile's result. `reference` says in words what was compared with; `differences` has a sentence
    for each (with `AS_DEFINED`: what the imitation has otherwise). `again` are the second hellos that were
    compared too; `reason` is why the profile is unlike an imitation, where it is."""

    profile: str
    verdict: Verdict
    reference: str
    connections: int
    differences: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    reason: str = ""

    def as_dict(self) -> dict[str, object]:
        return {
            "profile": self.profile,
            "verdict": self.verdict.value,
            "reference": self.reference,
            "connections": self.connections,
            "differences": list(self.differences),
            "second_hellos": list(self.again),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hellos of ours, and whether a ChangeCipherSpec came between."""

    first: ClientHello
    second: ClientHello
    after_change_cipher_spec: bool = False


class Bench:
    """An engine and a capture server, connected. An async context manager, on one event loop."""

    def __init__(self) -> None:
        self._exits = contextlib.AsyncExitStack()
        self._visits: asyncio.Queue[Visit | str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            root = await asyncio.to_thread(throw_away_root)
            server = CaptureServer(
                self._visits.put_nowait,
                contexts=Contexts(root, fallback=HOST),
                on_failure=lambda _client, sentence: self._visits.put_nowait(sentence),
            )
            exits.push_async_callback(server.stop)
            self._port = (await server.start(Address(_LOCAL, 0))).port
            self._asking = AskingServer(
                Contexts(root, fallback=HOST, protocols=("http/1.1",), group=GROUP_NAME),
                Contexts(root, fallback=HOST, protocols=("http/1.1",), sessions=True),
            )
            exits.push_async_callback(self._asking.stop)
            self._asking_port = await self._asking.start(Address(_LOCAL, 0))
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
            problem = await self._visit(context, spec, self._port)
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

    async def asked(self, spec: HelloSpec, asking: Asking) -> Pair | str:
        """What is said when the profile is asked again, or what went wrong."""
        context = ClientContext(spec, None, verify_chain=False, verify_host=False)
        self._asking.asking = asking
        sent: list[bytes] = []
        for _ in range(2 if asking is Asking.SESSION else 1):
            problem = await self._visit(context, spec, self._asking_port, request=True)
            sent.append(await asyncio.wait_for(self._asking.taken.get(), 2 * _STEP_SECONDS))
            # A server that asks for a cookie hangs up when it has it.
            if problem is not None and asking in (Asking.GROUP, Asking.SESSION):
                return problem
        try:
            found = [hellos_in(data) for data in sent]
        except HelloError as error:
            return str(error)
        if asking is Asking.SESSION and all(hellos for hellos, _ in found):
            return Pair(found[0][0][0], found[1][0][0])
        hellos, changed = found[0]
        return Pair(hellos[0], hellos[1], changed) if len(hellos) == 2 else "there is no second hello"

    async def _visit(
        self, context: ClientContext, spec: HelloSpec, port: int, *, request: bool = False
    ) -> str | None:
        """One connection, to the end of its handshake, or of an answer; what went wrong."""
        address = SocketAddress(_LOCAL, port)
        connected = await self._engine.connect(self._near, [address], timeout=_STEP_SECONDS)
        stream = connected.stream
        try:
            alpn = [name.encode("latin-1") for name in spec.alpn]
            await stream.connect_tls(context, host=HOST, port=port, alpn=alpn, timeout=_STEP_SECONDS)
            if request:  # with the answer come the tickets
                await stream.write(_REQUEST, timeout=_STEP_SECONDS)
                await stream.read_head(_MAX_HEAD_BYTES, timeout=_STEP_SECONDS)
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
    askings = dict.fromkeys(pair.asking for golden in goldens for pair in golden.seconds)
    again = {asking: await bench.asked(spec, asking) for asking in askings}
    return judge(spec, [visit.hello for visit in visits], goldens, problems, again)


def judge(
    spec: HelloSpec,
    sent: Sequence[ClientHello],
    goldens: Sequence[Golden],
    problems: Sequence[str] = (),
    again: Mapping[Asking, Pair | str] | None = None,
) -> Verified:
    """The verdict over hellos that were sent, and over pairs of them. Raises `HelloError` for a golden that
    is no client's."""
    reference = ", ".join(
        f"{golden.name}, an imitation's" if golden.imitation else golden.name for golden in goldens
    )
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
        normal = normalise(golden.hellos)
        differences = difference(normal, actual) + _second_hellos(golden, normal.permuted, again or {})
        on_purpose = golden.imitation and spec.unlike_capture and spec.exact is not None and not own
        (theirs if on_purpose else found).extend(differences)
    found, theirs = list(dict.fromkeys(found)), list(dict.fromkeys(theirs))
    verdict = Verdict.DIFFERS if found else Verdict.AS_DEFINED if theirs else Verdict.EXACT
    return Verified(
        spec.name,
        verdict,
        reference,
        len(sent),
        tuple(found or theirs),
        tuple(asking.value for asking in again or ()),
        spec.unlike_capture if verdict is Verdict.AS_DEFINED else "",
    )


def _second_hellos(golden: Golden, permuted: bool, again: Mapping[Asking, Pair | str]) -> list[str]:
    """Where ours are not the golden's."""
    found = []
    for theirs in golden.seconds:
        ours = again.get(theirs.asking)
        if ours is None:
            continue
        what = theirs.asking.value
        if isinstance(ours, str):
            found.append(f"{what}: {ours}")
            continue
        expected = second.changes(theirs.first, theirs.second, permuted=permuted)
        actual = second.changes(ours.first, ours.second, permuted=permuted)
        found += [f"{what}: {text}" for text in second.difference(expected, actual)]
        between = theirs.after_change_cipher_spec
        if between is not None and between != ours.after_change_cipher_spec:
            place = "no ChangeCipherSpec" if between else "a ChangeCipherSpec"
            found.append(f"{what}: there is {place} before it")
    return found
