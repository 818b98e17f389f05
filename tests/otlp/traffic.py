"""Mixed traffic through a proxy: requests that go well, and a tunnel for each kind of failure that a client
or an origin can bring about. The tests of telemetry look at what a collector makes of it, and `make
demo-otlp` shows it.

Every case has a host name of its own, made of the kind that it is for, so that its tunnel can be found again.
Heads that cannot be read name no host: those are found by their outcome. What cannot be provoked from outside
is in `NOT_PROVOKED`, with the reason.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polytls.errors import Kind
from tests.peers.certificates import CLIENT_AUTH, Authority
from tests.peers.clients import client_context, connect_head, memory_client, read_all, tls_tunnel, tunnel
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS, Serve
from tests.peers.tools import curl, run_curl, s_server

PROFILE = "X-PolyTLS-Upstream-Profile"
CALLER_TRACE, CALLER_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED_TRACE = "7c1f2d9b3a604e5f8a1b2c3d4e5f6071"

CONFIG = """
[proxy.timeouts]
head = 3
hello = 3
connect = 3
handshake = 3
idle = 3
lifetime = 5

[proxy.mitm]
sni = "require"

[proxy.limits]
tunnels = 16

[log]
fingerprint = true
"""
"""Long enough for what is not meant to take too long, on a machine with other things to do."""
OPEN_TUNNELS = 16

NOT_PROVOKED = {
    Kind.RESOLVE_FAILED: "needs a resolver that fails",
    Kind.RESOLVE_TIMEOUT: "needs a resolver that is slow",
    Kind.CERTIFICATE_INVALID: "all certificates that OpenSSL can show fail in a way that has its own word",
    Kind.LEAF_FAILED: "needs a root CA that cannot sign",
    Kind.RELAY_TLS_ERROR: "needs a peer that breaks TLS after the handshake",
    Kind.DRAINING: "needs a head that comes while the proxy stops",
    Kind.CANCELLED: "needs a proxy that is ended while something else is under way",
    Kind.INTERNAL: "a defect",
}


@dataclass(frozen=True)
class Lab:
    """What cases are made of. `origin` is a good one; `options` of curl make it trust the proxy's root."""

    proxy: Serve
    authority: Authority
    origin: Origin

    def ask(self, host: str, *options: str, port: int = 0, code: int = 0) -> bytes:
        """What curl gets for a request to `host`; it must end with `code`."""
        url = f"https://{host}:{port or self.origin.port}/"
        return run_curl(self.proxy, *options, url, code=code).stdout

    def raw(self, data: bytes, *, then_close: bool = False) -> bytes:
        """What comes back, to the end, for bytes sent to the proxy."""
        with socket.create_connection(self.proxy.host_and_port, timeout=HANG_SECONDS) as connection:
            connection.sendall(data)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            return _to_end(connection)

    def in_tunnel(self, host: str, data: bytes, *, port: int = 0, then_close: bool = False) -> bytes:
        """What comes back, to the end, for bytes sent into a tunnel."""
        with tunnel(self.proxy, host, port or self.origin.port) as connection:
            connection.sendall(data)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            return _to_end(connection)

    def wrong_certificate(self, host: str, *names: str, **how: Any) -> None:
        with Origin(origin_context(self.authority.issue(*(names or ("*.lab.test",)), **how))) as origin:
            self.ask(host, "--http1.1", port=origin.port)

    def bad_origin(self, host: str, handler: Callable[[socket.socket], object]) -> None:
        with _tcp(handler) as port:
            self.ask(host, "--http1.1", port=port)


Run = Callable[[Lab, str], object]
_CASES: dict[Kind, Run] = {}


def case(kind: Kind) -> Callable[[Run], Run]:
    """The function brings about this kind, with a tunnel to the host that it is given."""

    def keep(run: Run) -> Run:
        _CASES[kind] = run
        return run

    return keep


def host_of(kind: Kind) -> str:
    """The host of the tunnel that a kind is provoked with."""
    return f"{kind.value.replace('_', '-')}.lab.test"


WITHOUT_HOST = frozenset(
    {
        Kind.NOT_CONNECT,
        Kind.MALFORMED_HEAD,
        Kind.BAD_AUTHORITY,
        Kind.HEAD_TOO_LARGE,
        Kind.TOO_MANY_HEADERS,
        Kind.HEAD_TIMEOUT,
        Kind.HEAD_CLOSED,
        Kind.TOO_MANY_TUNNELS,
    }
)
NO_SUCH_NAME = "no-such-name.polytls.invalid"  # RFC 6761 §6.4


NOWHERE = "255.255.255.255"
DRAIN_OPTIONS = ("--drain-timeout", "0.2")  # less than `idle`, so that what is open is drained


def hosts() -> dict[str, Kind]:
    """Every host that a failure is provoked with, `drained` aside, which is for the end."""
    found = {host_of(kind): kind for kind in _CASES if kind not in WITHOUT_HOST}
    del found[host_of(Kind.NAME_NOT_FOUND)], found[host_of(Kind.CONNECT_UNREACHABLE)]
    return {**found, NOWHERE: Kind.CONNECT_UNREACHABLE}


GOOD = ("http1.lab.test", "http2.lab.test", "mirror.lab.test", "traced.lab.test", "unsampled.lab.test")


def good(lab: Lab) -> int:
    """What goes well: how many tunnels."""
    lab.ask(GOOD[0], "--http1.1", "--proxy-header", f"{PROFILE}: firefox")
    lab.ask(GOOD[1], "--http2", "--proxy-header", f"{PROFILE}: chrome")
    lab.ask(GOOD[2], "--http2", "--proxy-header", f"{PROFILE}: mirror")
    lab.ask(GOOD[3], "--proxy-header", f"traceparent: 00-{CALLER_TRACE}-{CALLER_SPAN}-01")
    lab.ask(GOOD[4], "--proxy-header", f"traceparent: 00-{UNSAMPLED_TRACE}-{CALLER_SPAN}-00")
    return len(GOOD)


SLOW = frozenset(
    {
        Kind.HEAD_TIMEOUT,
        Kind.CONNECT_TIMEOUT,
        Kind.UPSTREAM_HANDSHAKE_TIMEOUT,
        Kind.HELLO_TIMEOUT,
        Kind.CLIENT_HANDSHAKE_TIMEOUT,
        Kind.IDLE_TIMEOUT,
        Kind.LIFETIME,
    }
)
"""Those that wait for a timeout: they do so at the same time."""


def bad(lab: Lab, told: Callable[[Kind], object] = lambda _kind: None) -> list[Kind]:
    """Every failure that is provoked; `told` is called before each. Raises what a case raises."""
    slow = [kind for kind in _CASES if kind in SLOW]
    for kind, run in _CASES.items():
        if kind not in SLOW:
            told(kind)
            run(lab, host_of(kind))
    for kind in slow:
        told(kind)
    with ThreadPoolExecutor(len(slow)) as pool:
        for done in [pool.submit(_CASES[kind], lab, host_of(kind)) for kind in slow]:
            done.result()
    return list(_CASES)


@contextlib.contextmanager
def open_at_the_end(lab: Lab) -> Iterator[None]:
    """A tunnel that is still open when the proxy stops within: its outcome is `drained`."""
    with tls_tunnel(
        lab.proxy, host_of(Kind.DRAINED), lab.origin.port, client_context(lab.proxy.root_pem)
    ) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        yield


# The head


@case(Kind.NOT_CONNECT)
def _not_connect(lab: Lab, _host: str) -> None:
    curl("-x", lab.proxy.url, "http://plain.lab.test/")


@case(Kind.MALFORMED_HEAD)
def _malformed_head(lab: Lab, _host: str) -> None:
    lab.raw(b"CONNECT  twice.lab.test:443  HTTP/1.1\r\n\r\n")


@case(Kind.BAD_AUTHORITY)
def _bad_authority(lab: Lab, _host: str) -> None:
    lab.raw(b"CONNECT lab.test HTTP/1.1\r\n\r\n")


@case(Kind.UNKNOWN_PROFILE)
def _unknown_profile(lab: Lab, host: str) -> None:
    lab.ask(host, "--proxy-header", f"{PROFILE}: netscape", code=56)


@case(Kind.HEAD_TOO_LARGE)
def _head_too_large(lab: Lab, _host: str) -> None:
    lab.raw(connect_head("large.lab.test", 443, "X: " + "x" * 20_000))


@case(Kind.TOO_MANY_HEADERS)
def _too_many_headers(lab: Lab, _host: str) -> None:
    lab.raw(connect_head("many.lab.test", 443, *(f"X-{number}: x" for number in range(70))))


@case(Kind.HEAD_TIMEOUT)
def _head_timeout(lab: Lab, _host: str) -> None:
    lab.raw(b"CONNECT slow")


@case(Kind.HEAD_CLOSED)
def _head_closed(lab: Lab, _host: str) -> None:
    lab.raw(b"CONNECT half", then_close=True)


@case(Kind.TOO_MANY_TUNNELS)
def _too_many_tunnels(lab: Lab, host: str) -> None:
    """The tunnels that are in the way have nothing to say, which is an outcome of theirs."""
    with contextlib.ExitStack() as stack:
        for _ in range(OPEN_TUNNELS):
            stack.enter_context(tunnel(lab.proxy, host_of(Kind.HELLO_TIMEOUT), lab.origin.port))
        lab.raw(connect_head(host, 443))


# Upstream


@case(Kind.NAME_NOT_FOUND)
def _name_not_found(lab: Lab, _host: str) -> None:
    lab.ask(NO_SUCH_NAME, code=56)


@case(Kind.CONNECT_REFUSED)
def _connect_refused(lab: Lab, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lab.ask(host, port=port, code=56)


@case(Kind.CONNECT_UNREACHABLE)
def _connect_unreachable(lab: Lab, _host: str) -> None:
    """There is no connection to the broadcast address, on any machine."""
    lab.raw(connect_head(NOWHERE, 443))


@case(Kind.CONNECT_TIMEOUT)
def _connect_timeout(lab: Lab, host: str) -> None:
    """A listener that accepts nobody, with its queue full: the kernel answers no more."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        lab.ask(host, port=listener.getsockname()[1], code=56)


@case(Kind.CERTIFICATE_EXPIRED)
def _expired(lab: Lab, host: str) -> None:
    lab.wrong_certificate(host, from_days=-3, to_days=-1)


@case(Kind.CERTIFICATE_NOT_YET_VALID)
def _not_yet_valid(lab: Lab, host: str) -> None:
    lab.wrong_certificate(host, from_days=1, to_days=3)


@case(Kind.CERTIFICATE_SELF_SIGNED)
def _self_signed(lab: Lab, host: str) -> None:
    lab.wrong_certificate(host, self_signed=True)


@case(Kind.CERTIFICATE_UNKNOWN_ROOT)
def _unknown_root(lab: Lab, host: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        certificate = Authority(Path(directory), "Nobody's").issue("*.lab.test")
        with Origin(origin_context(certificate)) as origin:
            lab.ask(host, "--http1.1", port=origin.port)


@case(Kind.CERTIFICATE_WRONG_HOST)
def _wrong_host(lab: Lab, host: str) -> None:
    lab.wrong_certificate(host, "elsewhere.test")


@case(Kind.CERTIFICATE_WRONG_USAGE)
def _wrong_usage(lab: Lab, host: str) -> None:
    lab.wrong_certificate(host, usage=(CLIENT_AUTH,))


@case(Kind.UPSTREAM_ALERT)
def _upstream_alert(lab: Lab, host: str) -> None:
    with s_server(
        lab.authority.issue("*.lab.test"), "-www", "-tls1_2", "-cipher", "ECDHE-ECDSA-CAMELLIA128-SHA256"
    ) as port:
        lab.ask(host, "--http1.1", port=port)


@case(Kind.UPSTREAM_PROTOCOL_VERSION)
def _upstream_version(lab: Lab, host: str) -> None:
    with s_server(lab.authority.issue("*.lab.test"), "-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as port:
        lab.ask(host, "--http1.1", port=port)


@case(Kind.UPSTREAM_UNSUPPORTED_CHOICE)
def _upstream_choice(lab: Lab, host: str) -> None:
    """A suite that the profile `openssl` shows, and that the engine does not speak."""
    certificate = lab.authority.issue("*.lab.test", use_rsa=True)
    with s_server(certificate, "-www", "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256") as port:
        lab.ask(host, "--http1.1", "--proxy-header", f"{PROFILE}: openssl", port=port)


@case(Kind.UPSTREAM_NOT_TLS)
def _upstream_not_tls(lab: Lab, host: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    lab.bad_origin(host, answer)


@case(Kind.UPSTREAM_CLOSED)
def _upstream_closed(lab: Lab, host: str) -> None:
    lab.bad_origin(host, lambda connection: connection.recv(4096))


@case(Kind.UPSTREAM_HANDSHAKE_TIMEOUT)
def _upstream_timeout(lab: Lab, host: str) -> None:
    lab.bad_origin(host, _to_end)


@case(Kind.UPSTREAM_TLS_ERROR)
def _upstream_tls_error(lab: Lab, host: str) -> None:
    """A ServerHello that ends too early."""

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03")
        _to_end(connection)

    lab.bad_origin(host, answer)


# The client's hello


@case(Kind.NOT_TLS)
def _not_tls(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, b"GET / HTTP/1.1\r\n\r\n")


@case(Kind.HELLO_MALFORMED)
def _hello_malformed(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")


@case(Kind.HELLO_TOO_LARGE)
def _hello_too_large(lab: Lab, host: str) -> None:
    message = b"\x01" + (100_000).to_bytes(3, "big") + bytes(100_000)
    records = b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
        for part in (message[at : at + 16_000] for at in range(0, len(message), 16_000))
    )
    with contextlib.suppress(OSError):  # it is closed while we send
        lab.in_tunnel(host, records)


@case(Kind.HELLO_TIMEOUT)
def _hello_timeout(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, b"")


@case(Kind.CLIENT_CLOSED)
def _client_closed(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, b"", then_close=True)


@case(Kind.SNI_MISMATCH)
def _sni_mismatch(lab: Lab, host: str) -> None:
    _refused(lab, host, client_context(lab.proxy.root_pem), server_name="elsewhere.test")


@case(Kind.SNI_MISSING)
def _sni_missing(lab: Lab, host: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(lab.proxy.root_pem)
    with (
        tunnel(lab.proxy, host, lab.origin.port) as plain,
        contextlib.suppress(ssl.SSLError),
        context.wrap_socket(plain),
    ):
        pass


@case(Kind.ALPN_MISMATCH)
def _alpn_mismatch(lab: Lab, host: str) -> None:
    _refused(lab, host, client_context(lab.proxy.root_pem, alpn=("spdy/3",)))


@case(Kind.HELLO_NOT_REPRODUCIBLE)
def _not_reproducible(lab: Lab, host: str) -> None:
    options = ("--curves", "X448:X25519", "--http1.1", "--proxy-header", f"{PROFILE}: mirror")
    lab.ask(host, *options)


# The client's TLS


@case(Kind.CLIENT_REJECTS_LEAF)
def _client_rejects(lab: Lab, host: str) -> None:
    curl("-x", lab.proxy.url, f"https://{host}:{lab.origin.port}/", code=60)


@case(Kind.CLIENT_ALERT)
def _client_alert(lab: Lab, host: str) -> None:
    """A fatal internal_error instead of the rest of the handshake."""
    lab.in_tunnel(host, _hello(lab, host) + b"\x15\x03\x03\x00\x02\x02\x50")


@case(Kind.CLIENT_NO_SHARED_PARAMETERS)
def _client_parameters(lab: Lab, host: str) -> None:
    maximum = ssl.TLSVersion.TLSv1_2
    _refused(
        lab,
        host,
        client_context(lab.proxy.root_pem, maximum=maximum, ciphers="ECDHE-ECDSA-CAMELLIA128-SHA256"),
    )


@case(Kind.CLIENT_HANDSHAKE_TIMEOUT)
def _client_timeout(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, _hello(lab, host))


@case(Kind.CLIENT_TLS_ERROR)
def _client_tls_error(lab: Lab, host: str) -> None:
    lab.in_tunnel(host, _hello(lab, host) + b"\x16\x03\x03\x00\x04\x0b\x00\x00\x00")


# The relay


@case(Kind.CLIENT_RESET)
def _client_reset(lab: Lab, host: str) -> None:
    with tls_tunnel(lab.proxy, host, lab.origin.port, client_context(lab.proxy.root_pem)) as connection:
        connection.sendall(b"GET /bytes/1000 HTTP/1.1\r\n\r\n")
        connection.recv(1)
        _reset_on_close(connection)


@case(Kind.UPSTREAM_RESET)
def _upstream_reset(lab: Lab, host: str) -> None:
    def reset(connection: ssl.SSLSocket, _seen: object) -> None:
        connection.recv(4096)
        _reset_on_close(connection)

    with Origin(origin_context(lab.authority.issue("*.lab.test")), reset) as origin:
        lab.ask(host, "--http1.1", port=origin.port, code=52)


@case(Kind.IDLE_TIMEOUT)
def _idle(lab: Lab, host: str) -> None:
    with tls_tunnel(lab.proxy, host, lab.origin.port, client_context(lab.proxy.root_pem)) as connection:
        _to_end(connection)


@case(Kind.LIFETIME)
def _lifetime(lab: Lab, host: str) -> None:
    """Requests, one after the other, for as long as they are answered. The pause keeps the origin's log
    short, and is far below the idle time."""
    with (
        tls_tunnel(lab.proxy, host, lab.origin.port, client_context(lab.proxy.root_pem)) as connection,
        contextlib.suppress(OSError),
    ):
        while True:
            connection.sendall(b"GET /bytes/10 HTTP/1.1\r\n\r\n")
            if not connection.recv(4096):
                return
            time.sleep(0.05)


def _hello(lab: Lab, host: str) -> bytes:
    return memory_client(client_context(lab.proxy.root_pem), host)[3]


def _refused(lab: Lab, host: str, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
    with (
        contextlib.suppress(ssl.SSLError),
        tls_tunnel(lab.proxy, host, lab.origin.port, context, server_name=server_name),
    ):
        pass


def _reset_on_close(connection: socket.socket) -> None:
    """RST instead of FIN, and at once: of a TLS socket, without a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _to_end(connection: socket.socket) -> bytes:
    with contextlib.suppress(OSError):
        return read_all(connection)
    return b""


@contextlib.contextmanager
def _tcp(handler: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that gives its one connection to `handler`, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG_SECONDS)

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(HANG_SECONDS)
                    handler(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(HANG_SECONDS)


def write_config(directory: Path, more: str = "") -> Path:
    """The configuration that the cases count on."""
    path = directory / "traffic.toml"
    path.write_text(CONFIG + more, encoding="utf-8")
    return path
