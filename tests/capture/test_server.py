"""The capture server and real clients: curl, openssl, Python, and some that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polytls.capture.certificates import MAX_NAMES, Contexts, root_in, throw_away_root
from polytls.capture.records import MAX_HELLO_BYTES, read_hellos
from polytls.capture.server import MAX_HEAD_BYTES, CaptureServer, ListenError
from polytls.fingerprint.ja4 import ja4
from polytls.settings import Address
from tests.capture.hellos import CHROME, OPENSSL
from tests.peers.serve import HANG_SECONDS, clean_environment
from tests.peers.tools import curl, require

if TYPE_CHECKING:
    from polytls.capture.report import Visit
    from polytls.pki.root import RootCA

NAME = "origin.lab.test"


@pytest.fixture(scope="module")
def root() -> RootCA:
    return throw_away_root()


@pytest.fixture(scope="module")
def root_pem(root: RootCA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "root.pem"
    path.write_bytes(root.certificate_pem)
    return path


class Capture:
    """A running server; `visit` and `failure` wait for the next of each."""

    def __init__(self, contexts: Contexts | None, **limits: Any) -> None:
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.failures: asyncio.Queue[str] = asyncio.Queue()
        self.server = CaptureServer(
            self.visits.put_nowait,
            contexts=contexts,
            on_failure=lambda _client, sentence: self.failures.put_nowait(sentence),
            **limits,
        )
        self.port = 0

    async def visit(self) -> Visit:
        return await asyncio.wait_for(self.visits.get(), HANG_SECONDS)

    async def failure(self) -> str:
        return await asyncio.wait_for(self.failures.get(), HANG_SECONDS)

    async def sent(self, data: bytes, *, end: bool = False) -> bytes:
        """What comes back for these bytes, to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if end:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), HANG_SECONDS)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def capturing(contexts: Contexts | None = None, **limits: Any) -> AsyncIterator[Capture]:
    capture = Capture(contexts, **limits)
    capture.port = (await capture.server.start(Address("127.0.0.1", 0))).port
    try:
        yield capture
    finally:
        await capture.server.stop()


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 2 * HANG_SECONDS))


@pytest.mark.parametrize("http", ["1.1", "2"])
def test_curl_gets_the_report_of_its_own_connection(root: RootCA, root_pem: Path, http: str) -> None:
    async def test() -> None:
        async with capturing(Contexts(root)) as capture:
            options = [
                "--cacert",
                str(root_pem),
                f"--http{http}",
                "-H",
                "Cookie: s3cr3t",
                "-w",
                "\n%{http_version}",
            ]
            to = ["--connect-to", f"::127.0.0.1:{capture.port}", f"https://{NAME}/path?s3cr3t"]
            done = await asyncio.to_thread(curl, *options, *to)
            body, _, version = done.stdout.rpartition(b"\n")
            assert version == http.encode()
            visit = await capture.visit()
            report = json.loads(body)
            assert report == visit.as_dict()
            assert report["sni"] == NAME
            assert report["ja4"] == ja4(visit.hello).ja4
            assert report["tls"]["alpn"] == ("h2" if http == "2" else "http/1.1")
            assert b"s3cr3t" not in body
            assert "s3cr3t" not in visit.as_text()
            (captured,) = read_hellos(body)
            assert captured.hello == visit.hello
            if http == "2":
                assert report["http2"]["akamai"].startswith("3:100;4:")
                assert set(report["http2"]["pseudo_headers"]) == {":method", ":scheme", ":authority", ":path"}
            else:
                assert report["http1"]["headers"][:2] == ["Host", "User-Agent"]
            assert visit.failure is None

    run(test)


def test_an_address_has_a_certificate_too(root: RootCA, root_pem: Path) -> None:
    async def test() -> None:
        async with capturing(Contexts(root)) as capture:
            url = f"https://127.0.0.1:{capture.port}/"
            done = await asyncio.to_thread(curl, "--cacert", str(root_pem), url)
            assert json.loads(done.stdout)["sni"] is None

    run(test)


def test_openssl_verifies_and_an_rsa_client_gets_rsa(root: RootCA, root_pem: Path) -> None:
    def s_client(port: int, *options: str) -> str:
        command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME]
        command += ["-CAfile", str(root_pem), "-verify_return_error", "-verify_hostname", NAME]
        done = subprocess.run(
            [*command, *options],
            input="",
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
            env=clean_environment(),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def test() -> None:
        async with capturing(Contexts(root)) as capture:
            said = await asyncio.to_thread(s_client, capture.port)
            assert "Peer signature type: ECDSA" in said
            said = await asyncio.to_thread(s_client, capture.port, "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
            assert "Peer signature type: RSA-PSS" in said
            # The hello was all that they came for.
            assert [(await capture.visit()).failure for _ in range(2)] == [None, None]

    run(test)


def test_no_session_is_resumed(root: RootCA) -> None:
    context = ssl.create_default_context(cadata=root.certificate_pem.decode())

    async def test() -> None:
        async with capturing(Contexts(root)) as capture:
            for _ in range(2):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", capture.port, ssl=context, server_hostname=NAME
                )
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
                session = writer.get_extra_info("ssl_object").session
                assert session is None or not session.has_ticket
                writer.close()
                await writer.wait_closed()

    run(test)


def test_without_tls_there_is_an_alert() -> None:
    async def test() -> None:
        async with capturing() as capture:
            assert await capture.sent(OPENSSL[0], end=True) == bytes.fromhex("15030300020228")
            visit = await capture.visit()
            assert visit.raw == OPENSSL[0]
            assert visit.tls is None
            assert visit.as_text().startswith("client                127.0.0.1:")
            assert "JA4_ro" in visit.as_text()
            url = f"https://127.0.0.1:{capture.port}/"
            await asyncio.to_thread(curl, "-k", url, code=35)
            assert "http/1.1" in (await capture.visit()).as_dict()["alpn"]  # type: ignore[operator]

    run(test)


def test_a_hello_that_comes_byte_by_byte() -> None:
    async def test() -> None:
        async with capturing() as capture:
            reader, writer = await asyncio.open_connection("127.0.0.1", capture.port)
            for at in range(len(OPENSSL[0])):
                writer.write(OPENSSL[0][at : at + 1])
                await writer.drain()
            assert await reader.read(7) == bytes.fromhex("15030300020228")
            assert (await capture.visit()).raw == OPENSSL[0]
            writer.transport.abort()

    run(test)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "without a word"),
        (OPENSSL[0][:50], "after 50 bytes of its hello"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin with a TLS handshake"),
        (b"\x16\x03\x01\x40\x00\x01" + (MAX_HELLO_BYTES).to_bytes(3, "big"), "at most 65536 are read"),
        (OPENSSL[0][:43] + b"\xff" + OPENSSL[0][44:], "malformed"),
        (OPENSSL[0].replace(b"\x00\x0a\x00\x16\x00\x14", b"\x00\x0a\x00\x16\x00\x15"), "supported_groups"),
    ],
)
def test_what_is_no_hello_is_told(data: bytes, says: str) -> None:
    async def test() -> None:
        async with capturing() as capture:
            assert await capture.sent(data, end=True) == b""
            assert says in await capture.failure()
            assert capture.visits.empty()

    run(test)


def test_deadlines(root: RootCA) -> None:
    async def test() -> None:
        async with capturing(Contexts(root), hello_seconds=0.05, exchange_seconds=0.05) as capture:
            assert await capture.sent(OPENSSL[0][:-1]) == b""
            assert await capture.failure() == "the client sent no whole ClientHello in 0.05 s"
            assert (await capture.sent(OPENSSL[0]))[:1] == b"\x16"
            assert (await capture.visit()).failure == "nothing more came in 0.05 s"

    run(test)


def test_a_client_that_breaks_tls_or_http(root: RootCA) -> None:
    trusting = ssl.create_default_context(cadata=root.certificate_pem.decode())

    async def talk(port: int, data: bytes, alpn: list[str]) -> bytes:
        trusting.set_alpn_protocols(alpn)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=NAME)
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.transport.abort()

    async def test() -> None:
        async with capturing(Contexts(root)) as capture:
            await capture.sent(OPENSSL[0] + b"\x17\x03\x03\x00\x02xx", end=True)
            assert "TLS failed" in ((await capture.visit()).failure or "")
            await capture.sent(CHROME[0], end=True)
            assert (await capture.visit()).failure == "the client ended the connection"
            assert await talk(capture.port, b"x" * (MAX_HEAD_BYTES + 1), ["http/1.1"]) == b""
            assert "more than 65536 bytes" in ((await capture.visit()).failure or "")
            await talk(capture.port, b"GET / HTTP/1.1\r\n", ["h2"])
            visit = await capture.visit()
            assert "preface" in (visit.failure or "")
            assert visit.tls is not None
            assert "failure" in visit.as_text()

    run(test)


def test_too_many_at_once_are_turned_away() -> None:
    async def test() -> None:
        async with capturing(max_connections=2) as capture:
            held = [await asyncio.open_connection("127.0.0.1", capture.port) for _ in range(2)]
            for _, writer in held:
                writer.write(OPENSSL[0][:9])
            assert await capture.sent(OPENSSL[0]) == b""
            assert capture.server.refused == 1
            for reader, writer in held:
                writer.write(OPENSSL[0][9:])
                assert await reader.read(7) == bytes.fromhex("15030300020228")
                writer.transport.abort()
            assert [(await capture.visit()).raw for _ in range(2)] == [OPENSSL[0]] * 2

    run(test)


def test_stop_ends_what_is_open_and_may_come_twice() -> None:
    async def test() -> None:
        async with capturing() as capture:
            reader, writer = await asyncio.open_connection("127.0.0.1", capture.port)
            writer.write(OPENSSL[0][:9])
            with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1"):
                await CaptureServer(print).start(Address("127.0.0.1", capture.port))
            await capture.server.stop()
            await capture.server.stop()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.transport.abort()

    run(test)


def test_a_client_that_resets() -> None:
    async def test() -> None:
        async with capturing() as capture:
            _, writer = await asyncio.open_connection("127.0.0.1", capture.port)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SO_LINGER: RST on close
            writer.write(OPENSSL[0][:9])
            await writer.drain()
            writer.transport.abort()
            assert "broke" in (said := await capture.failure()) or "went away" in said

    run(test)


def test_contexts_are_kept_and_bounded(root: RootCA, tmp_path: Path) -> None:
    contexts = Contexts(root, fallback="192.0.2.1")
    first = contexts.context(b"A.test")
    assert contexts.context(b"a.test") is first
    assert contexts.context(b"no name!") is contexts.context(None)
    assert contexts.context(b"\xff") is contexts.context(b"")
    for number in range(MAX_NAMES):
        contexts.context(b"n%d.test" % number)
    assert contexts.context(b"a.test") is not first
    kept = root_in(tmp_path, "key.pem", "certificate.pem", None)
    assert root_in(tmp_path, "key.pem", "certificate.pem", None).certificate == kept.certificate
