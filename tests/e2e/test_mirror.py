"""Profile `mirror` with real clients: what the origin sees is what the client sent to the proxy."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.normal import difference, normalise
from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.iana import ExtensionType, is_grease
from tests.golden.drivers import Client, Visit, clients
from tests.golden.known import NAMES, capture, hello_of, permutes
from tests.golden.profiles import samples
from tests.golden.recorder import HOST, Answer, Recorder, SentHello, sent_hellos
from tests.peers.clients import client_context, tls_tunnel, tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS, Serve, clean_environment
from tests.peers.shim import Shim
from tests.peers.tls12 import flight
from tests.peers.tools import require, run_curl, s_server

if TYPE_CHECKING:
    from tests.peers.certificates import Authority

MIRROR = "X-PolyTLS-Upstream-Profile: mirror"
VISITS = 4
IMITATED = [name for name in NAMES if capture(name)["imitation"]]

KEY_SHARE, X448 = 51, 0x001E


@cache
def installed() -> dict[str, Client]:
    """The clients that are here, by the family of their name."""
    found = {}
    for client in clients():
        family = client.name if client.imitation else client.name.rstrip("0123456789.").rstrip("-")
        found[f"java-{client.name.rpartition('-')[2]}" if client.name.endswith("connection") else family] = (
            client
        )
    return found


@dataclass(frozen=True)
class Lab:
    """A proxy that mirrors, and where its clients' certificates and files are."""

    proxy: Serve
    authority: Path
    certificate: Path
    directory: Path

    def visit(self, client: Client, times: int = VISITS) -> tuple[list[ClientHello], list[ClientHello]]:
        """What a client sent, and what the origin got, connection by connection."""
        with (
            Recorder(Answer.FULL, self.certificate) as origin,
            Shim(self.proxy.host_and_port, HOST, origin.port, MIRROR) as shim,
        ):
            client.visit(Visit(shim.port, times, self.proxy.root_pem, self.directory, enough(origin, times)))
            ours, theirs = firsts(origin.connections), firsts(shim.connections)
        # A browser that is ended in the middle leaves one behind.
        assert times <= len(ours) <= len(theirs)
        return theirs[: len(ours)], ours

    def direct(self, client: Client, times: int = VISITS) -> list[ClientHello]:
        """What a client sends without the proxy."""
        with Recorder(Answer.FULL, self.certificate) as origin:
            client.visit(Visit(origin.port, times, self.authority, self.directory, enough(origin, times)))
            return firsts(origin.connections)


def enough(origin: Recorder, times: int) -> Callable[[float], bool]:
    return lambda seconds: origin.wait(lambda seen: len(seen) >= times, seconds)


def firsts(connections: list[list[SentHello]]) -> list[ClientHello]:
    return [hellos[0].parsed for hellos in connections]


@pytest.fixture(scope="module")
def lab(
    ca_dir: Path, authority: Authority, mitm: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(authority.pem))
    with Serve(ca_dir, *options, "--profile", "default") as proxy:
        yield Lab(proxy, authority.pem, authority.issue(HOST), tmp_path_factory.mktemp("clients"))


def order(hello: ClientHello) -> tuple[int, ...]:
    """Of the extensions, without padding."""
    return tuple(0x0A0A if is_grease(number) else number for number in hello.extension_types if number != 21)


def unpadded(hello: ClientHello) -> ClientHello:
    kept = tuple(extension for extension in hello.extensions if extension.type != 21)
    return dataclasses.replace(hello, extensions=kept)


def assert_mirrored(theirs: list[ClientHello], ours: list[ClientHello]) -> None:
    assert sorted(map(order, ours)) == sorted(map(order, theirs))
    assert difference(normalise(theirs), normalise(ours)) == []
    # Whether a hello needs padding hangs on random lengths in it: `normalise` has compared when it is there.
    assert {ja4(unpadded(hello)).ja4_r for hello in ours} <= {ja4(unpadded(hello)).ja4_r for hello in theirs}
    assert {ja3(unpadded(hello)).ja3n for hello in ours} <= {ja3(unpadded(hello)).ja3n for hello in theirs}
    fresh = [(hello.random, *(share.key_exchange for share in hello.key_shares[-1:])) for hello in ours]
    assert len({value for values in fresh for value in values}) == len(
        [v for values in fresh for v in values]
    )
    assert not {hello.random for hello in ours} & {hello.random for hello in theirs}


def one(name: str) -> Client:
    found = installed().get(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    "name",
    ["curl", "openssl", "python", "requests", "node", "java", "java-urlconnection", "go", "gnutls", "wget"],
)
def test_libraries(lab: Lab, name: str) -> None:
    client = one(name)
    theirs, ours = lab.visit(client)
    assert_mirrored(theirs, ours)
    assert {order(hello) for hello in theirs} == {order(hello) for hello in ours}
    # The same without the proxy: that it is there changes nothing that the client says.
    assert difference(normalise(lab.direct(client)), normalise(ours)) == []


@pytest.mark.parametrize("name", ["chromium", "firefox-esr"])
def test_browsers(lab: Lab, name: str) -> None:
    """Visited by the page's wish to be loaded again. Chromium permutes, Firefox does not."""
    client = one(name)
    theirs, ours = lab.visit(client, 6)
    assert_mirrored(theirs, ours)
    orders = {order(hello) for hello in ours}
    assert len(orders) > 1 if name == "chromium" else len(orders) == 1


@pytest.mark.parametrize("name", IMITATED)
def test_imitations(lab: Lab, name: str) -> None:
    pytest.importorskip("curl_cffi")
    client = one(name)
    theirs, ours = lab.visit(client, 6)
    assert_mirrored(theirs, ours)
    assert (len({order(hello) for hello in ours}) > 1) == permutes(name)


def test_curl_by_its_own_option(lab: Lab) -> None:
    """With -x, as people use it, and not through a port that hides the proxy."""
    pages = [part for _ in range(VISITS) for part in ("-o", os.devnull, f"https://{HOST}:")]
    with Recorder(Answer.FULL, lab.certificate) as origin:
        urls = [page + str(origin.port) if page.endswith(":") else page for page in pages]
        done = run_curl(lab.proxy, "--write-out", "%{http_code} ", "--proxy-header", MIRROR, *urls)
        assert done.stdout.split() == [b"200"] * VISITS
        ours = firsts(origin.connections)
    assert difference(normalise(lab.direct(one("curl"))), normalise(ours)) == []


# --- clients as raw as a socket -----------------------------------------------------------------------


def replay(lab: Lab, hello: bytes, port: int) -> bytes:
    """What comes first in answer to a hello that nobody stands behind."""
    with tunnel(lab.proxy, HOST, port, MIRROR) as connection:
        connection.sendall(hello)
        return connection.recv(1 << 16)


class Sink:
    """Takes the first hello of every connection, and hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(HANG_SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def take(self, answer: Callable[[bytes], bytes] | None = None) -> bytes:
        """All that the next connection sends until there is a whole hello, or it ends; with an answer to the
        hello, what comes of that is waited for."""
        connection, _ = self._listener.accept()
        data = b""
        with connection, contextlib.suppress(OSError):
            connection.settimeout(HANG_SECONDS)
            while not sent_hellos(data) and (part := connection.recv(1 << 16)):
                data += part
            if answer is not None:
                connection.sendall(answer(data))
                connection.recv(1 << 16)
        return data


def test_the_order_is_the_clients_own(lab: Lab) -> None:
    """Chrome 110 permutes, Chrome 100 does not, and else they are alike: who comes first changes nothing."""
    theirs, ours = [], []
    with Sink() as sink:
        for name in ("chrome-110", "chrome-100", "chrome-110", "chrome-104", "chrome-107", "chrome-100"):
            for sample in samples(name):
                with tunnel(lab.proxy, HOST, sink.port, MIRROR) as connection:
                    connection.sendall(sample)
                    theirs.append(order(parse_client_hello(sample)))
                    ours.append(order(parse_client_hello(sink.take())))
    assert ours == theirs
    assert len(set(ours)) == 1 + len(samples("chrome-110"))


def test_two_shapes_that_differ_in_one_thing_only(lab: Lab) -> None:
    """What one client's hello shows is not sent for another's that is alike in all but that."""
    real, imitated = samples("firefox-esr-153")[0], samples("firefox-153")[0]
    with Sink() as sink:
        for hello in (real, imitated, real, imitated):
            with tunnel(lab.proxy, HOST, sink.port, MIRROR) as connection:
                connection.sendall(hello)
                ours = parse_client_hello(sink.take())
            assert difference(normalise([parse_client_hello(hello)]), normalise([ours])) == []


def rebuilt(hello: ClientHello, **changes: Any) -> bytes:
    """Records of a parsed hello, changed."""
    parts: dict[str, Any] = {
        name: changes.get(name, getattr(hello, name)) for name in ClientHello.__dataclass_fields__
    }
    extensions = b"".join(
        number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
        for number, body in ((item.type, item.body) for item in parts["extensions"])
    )
    suites = b"".join(suite.to_bytes(2, "big") for suite in parts["cipher_suites"])
    message = parts["legacy_version"].to_bytes(2, "big") + parts["random"]
    message += bytes((len(parts["session_id"]),)) + parts["session_id"]
    message += len(suites).to_bytes(2, "big") + suites
    message += bytes((len(parts["compression_methods"]), *parts["compression_methods"]))
    message += len(extensions).to_bytes(2, "big") + extensions
    handshake = b"\1" + len(message).to_bytes(3, "big") + message
    return b"".join((b"\x16", _u16(parts["record_version"]), _u16(len(handshake)), handshake))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


@pytest.mark.parametrize(
    "change", [{"session_id": b""}, {"session_id": bytes(8)}, {"legacy_version": 0x0302}], ids=str
)
def test_what_only_looks_like_a_shape_that_is_known(lab: Lab, change: dict[str, Any]) -> None:
    """Refused, since the engine cannot send it, whoever came before."""
    good = samples("openssl-3.0")[0]
    with Sink() as sink, tunnel(lab.proxy, HOST, sink.port, MIRROR) as connection:
        connection.sendall(good)
        assert sink.take()
    with Sink() as sink:
        replay(lab, rebuilt(parse_client_hello(good), **change), sink.port)
        assert sink.take() == b""
        assert outcome_at(lab.proxy, sink.port)["outcome"] == "hello_not_reproducible"


# --- what the engine cannot send ----------------------------------------------------------------------


def with_share_of_x448() -> bytes:
    """A client that lists X448 (as OpenSSL does) and has a key share of nothing else."""
    hello = hello_of("openssl-3.0")
    assert X448 in hello.supported_groups
    share = X448.to_bytes(2, "big") + (56).to_bytes(2, "big") + os.urandom(56)
    extensions = tuple(
        type(item)(item.type, len(share).to_bytes(2, "big") + share) if item.type == KEY_SHARE else item
        for item in hello.extensions
    )
    return rebuilt(hello, extensions=extensions)


def x448_client(port: int, root_pem: Path) -> bytes:
    """`openssl s_client` that prefers X448, so that its only key share is of that: one request's answer."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST]
    trust = ["-CAfile", str(root_pem), "-verify_return_error"]
    done = subprocess.run(
        [*command, "-groups", "X448:X25519", *trust, "-quiet", "-ign_eof"],
        input=b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        capture_output=True,
        env=clean_environment(),
        timeout=HANG_SECONDS,
        check=False,
    )
    return done.stdout


def outcome_at(proxy: Serve, port: int) -> dict[str, Any]:
    """The record of the last tunnel to this port, when there is one."""
    count = 1
    while True:
        found = [record for record in proxy.records(HOST, count) if record["port"] == port]
        if found:
            return found[-1]
        count = len(proxy.records(HOST, count)) + 1


def test_a_share_that_cannot_be_made_is_refused_by_name(lab: Lab) -> None:
    with Sink() as sink:
        answer = replay(lab, with_share_of_x448(), sink.port)
        assert sink.take() == b""
        # An alert, or the beginning of the handshake in which the page comes: nothing of the origin's.
        assert answer[0] in (21, 22)
        record = outcome_at(lab.proxy, sink.port)
    assert record["outcome"] == "hello_not_reproducible"
    assert "x448" in record["detail"]
    assert record["upstream_tls"] is None


def test_a_client_that_completes_its_handshake_is_shown_the_page(lab: Lab) -> None:
    with Recorder(Answer.FULL, lab.certificate) as origin:
        with Shim(lab.proxy.host_and_port, HOST, origin.port, MIRROR) as shim:
            answer = x448_client(shim.port, lab.proxy.root_pem)
            assert [share.group for share in firsts(shim.connections)[0].key_shares] == [X448]
        assert origin.connections == []
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"polytls: hello_not_reproducible: " in answer
    assert b"x448" in answer


def test_it_can_be_dropped_instead(lab: Lab, ca_dir: Path, tmp_path: Path) -> None:
    """The rest is sent, and an origin that wants a share asks for one."""
    file = tmp_path / "polytls.toml"
    file.write_text('[proxy.mitm]\nmirror_unsupported = "drop"\n')
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(lab.authority))
    with (
        Serve(ca_dir, "--config", str(file), *options) as proxy,
        Recorder(Answer.FULL, lab.certificate) as origin,
        Shim(proxy.host_and_port, HOST, origin.port, MIRROR) as shim,
    ):
        answer = x448_client(shim.port, proxy.root_pem)
        theirs = firsts(shim.connections)[0]
        first, second = (hello.parsed for hello in origin.connections[0])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert first.key_shares == ()
    assert [share.group for share in second.key_shares] == [0x001D]
    # Nothing else is missing.
    assert first.extension_types == theirs.extension_types
    assert first.supported_groups == theirs.supported_groups


def test_next_protocol_negotiation(ca_dir: Path, lab: Lab) -> None:
    """The predecessor of ALPN: OpenSSL can still do it, and the proxy must survive that."""
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(lab.authority))
    proxy = Serve(ca_dir, *options)
    try:
        with (
            s_server(lab.certificate, "-www", "-tls1_2", "-nextprotoneg", "http/1.1") as port,
            Shim(proxy.host_and_port, HOST, port, MIRROR) as shim,
        ):
            command = [
                require("openssl"),
                "s_client",
                "-connect",
                f"127.0.0.1:{shim.port}",
                "-servername",
                HOST,
            ]
            subprocess.run(
                [*command, "-tls1_2", "-nextprotoneg", "http/1.1", "-quiet", "-ign_eof"],
                input=b"GET / HTTP/1.0\r\n\r\n",
                capture_output=True,
                env=clean_environment(),
                timeout=HANG_SECONDS,
                check=False,
            )
            assert 13172 in firsts(shim.connections)[0].extension_types
        with Recorder(Answer.FULL, lab.certificate) as origin:
            run_curl(proxy, "-o", os.devnull, f"https://{HOST}:{origin.port}/")
    finally:
        code = proxy.stop()
    assert code == 0


ANSWERED = {
    13172: b"\x08http/1.1",  # next_protocol_negotiation (draft-agl-tls-nextprotoneg)
    30032: b"",  # channel_id (draft-balfanz-tls-channelid)
    14: b"\0\2\0\1\0",  # use_srtp (RFC 5764 §4.1.1)
    18: b"\0\4\0\2\0\0",  # signed_certificate_timestamp (RFC 6962 §3.3.1)
    5: b"",  # status_request (RFC 6066 §8)
    17: b"",  # status_request_v2 (RFC 6961 §2.2)
    11: b"\1\0",  # ec_point_formats (RFC 8422 §5.1.2)
    10: b"\0\2\0\x1d",  # supported_groups, from servers that do not know better
    15: b"\1",  # heartbeat (RFC 6520 §2)
    20: b"\0",  # server_certificate_type (RFC 7250 §4.2)
    57: b"\0\0",  # quic_transport_parameters (RFC 9001 §8.2)
    27: b"\2\0\1",  # compress_certificate, which is TLS 1.3's
    34: b"",  # delegated_credential, likewise
    0x1234: b"?",
}
OFFERED = {14: b"\0\2\0\1\0", 15: b"\1", 20: b"\1\0", 27: b"\2\0\1", 34: b"\0\2\4\3", 5: b"\1\0\0\0\0"}


@pytest.mark.parametrize("number", ANSWERED)
def test_an_answer_to_whatever_a_client_offers(ca_dir: Path, lab: Lab, number: int) -> None:
    """The client offers an extension that BoringSSL would never have, a TLS 1.2 server answers it. Whatever
    comes of that, the proxy lives."""
    hello = hello_of("openssl-3.0")
    item_of = type(hello.extensions[0])
    added = () if number in hello.extension_types else (item_of(number, OFFERED.get(number, b"")),)
    offered = rebuilt(hello, extensions=(*hello.extensions, *added))
    options = ("--resolve", f"{HOST}:127.0.0.1", "--upstream-ca-file", str(lab.authority))
    proxy = Serve(ca_dir, *options)
    try:
        with Sink() as sink, tunnel(proxy, HOST, sink.port, MIRROR) as connection:
            connection.sendall(offered)
            answers = [(0xFF01, b"\0"), (23, b""), (number, ANSWERED[number])]
            assert sink.take(lambda sent: flight(parse_client_hello(sent), lab.certificate, answers))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)
        with Recorder(Answer.FULL, lab.certificate) as origin:
            run_curl(proxy, "-o", os.devnull, f"https://{HOST}:{origin.port}/")
    finally:
        code = proxy.stop()
    assert code == 0


# --- hellos that nobody sends -------------------------------------------------------------------------

CAPTURED = (
    "openssl-3.0",
    "chrome-133",
    "firefox-esr-153",
    "java-17",
    "safari-15.3",
    "gnutls-3.7",
    "go-1.26",
    "chromium-156",
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A captured hello with extensions changed, left out, moved or added, and right lengths; or any bytes
    changed."""
    hello = parse_client_hello(samples(draw(st.sampled_from(CAPTURED)))[0])
    items = list(hello.extensions)
    item_of = type(items[0])
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(items) - 1))
        match draw(st.sampled_from(("remove", "body", "flip", "move", "type", "add", "empty"))):
            case "remove":
                del items[at]
            case "body":
                items[at] = item_of(items[at].type, draw(st.binary(max_size=12)))
            case "flip" if items[at].body:
                body = bytearray(items[at].body)
                body[draw(st.integers(0, len(body) - 1))] ^= 1 << draw(st.integers(0, 7))
                items[at] = item_of(items[at].type, bytes(body))
            case "move":
                items.insert(draw(st.integers(0, len(items) - 1)), items.pop(at))
            case "type":
                items[at] = item_of(draw(st.integers(0, 65535)), items[at].body)
            case "add":
                number = draw(st.integers(0, 65535) | st.sampled_from((13172, 30032, 21, 41, 42, 44, 57, 20)))
                items.insert(at, item_of(number, draw(st.binary(max_size=8))))
            case _:
                items[at] = item_of(items[at].type, b"")
    changes: dict[str, Any] = {"extensions": tuple(items)}
    if draw(st.booleans()):
        suites = st.lists(st.integers(0, 65535), min_size=1, max_size=8)
        changes["cipher_suites"] = (*draw(suites), *hello.cipher_suites)
    records = bytearray(rebuilt(hello, **changes))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        records[draw(st.integers(0, len(records) - 1))] = draw(st.integers(0, 255))
    return bytes(records)


def opinion(context: ssl.SSLContext, records: bytes) -> str:
    """What OpenSSL's server has to say about a hello: "taken", or why not."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(records)
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        return "taken" if outgoing.pending else "waiting"
    except ssl.SSLError as error:
        return error.reason or str(error)
    return "taken"


def test_a_mutated_hello_is_refused_or_becomes_a_good_one(lab: Lab) -> None:
    context = origin_context(lab.certificate)
    upstream = {"sent": 0}

    with Sink() as sink:

        @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(mutated())
        def check(records: bytes) -> None:
            with tunnel(lab.proxy, HOST, sink.port, MIRROR) as connection:
                connection.sendall(records)
                connection.shutdown(socket.SHUT_WR)
                sent = sink.take()
            if not sent:
                return
            upstream["sent"] += 1
            (hello,) = sent_hellos(sent)
            assert len(hello.records) == len(sent)
            parsed = hello.parsed
            assert ExtensionType.PRE_SHARED_KEY not in parsed.extension_types
            assert ExtensionType.EARLY_DATA not in parsed.extension_types
            assert not parsed.extension(ExtensionType.SESSION_TICKET)
            if opinion(context, records) == "taken":
                assert opinion(context, sent) == "taken", (records.hex(), sent.hex())

        check()
    assert upstream["sent"] > 20
    with (
        Origin(context) as origin,
        tls_tunnel(lab.proxy, HOST, origin.port, client_context(lab.proxy.root_pem), MIRROR) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
