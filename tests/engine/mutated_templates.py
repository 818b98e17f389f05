"""Mutated templates, for the native parser, and sent where it takes them.

    python -m tests.engine.mutated_templates SEED EXAMPLES

A process of its own (`test_exact_templates` runs it), so that a crash is a failed test rather than the end of
them all. What is held: a template is refused, or what is written from it is a ClientHello by its structure.
What the parser should refuse besides is in that test.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import socket
import sys
import threading

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from polytls.engine import ClientContext, SocketAddress
from polytls.errors import EngineError, ProxyError
from polytls.profiles import Catalog
from polytls.wire.client_hello import HelloError, parse_client_hello
from tests.engine.dialer import Dialer, dialing
from tests.engine.harness import HANG_SECONDS

_HOST = "golden.test"
_NAMES = ("chrome-120", "chromium-156", "firefox-esr-153", "java-17", "safari-15.3", "wget-1.21", "go-1.26")
_CATALOG = Catalog.load({}, "test")
_TEMPLATES = [_CATALOG.require(name, source="test", key="").template or b"" for name in _NAMES]
_OFFSET = re.compile(r"what is wrong begins at byte (\d+)$")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A template with some bytes changed, left out, doubled, or of another template."""
    blob = bytearray(draw(st.sampled_from(_TEMPLATES)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(blob) - 1)))
        size = draw(st.integers(1, 8))
        match draw(st.sampled_from(("change", "flip", "remove", "insert", "double", "splice"))):
            case "change":
                blob[start : start + size] = draw(st.binary(min_size=1, max_size=size))
            case "flip" if blob:
                blob[start] ^= 1 << draw(st.integers(0, 7))
            case "remove":
                del blob[start : start + size]
            case "insert":
                blob[start:start] = draw(st.binary(max_size=size))
            case "double":
                blob[start:start] = blob[start : start + size]
            case _:
                blob[start:] = draw(st.sampled_from(_TEMPLATES))[start:]
    return bytes(blob)


def _take(listener: socket.socket, taken: list[bytes]) -> None:
    """One connection's first bytes: as much as one record says it has."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(HANG_SECONDS)
        data = b""
        while len(data) < 5 or len(data) < 5 + int.from_bytes(data[3:5], "big"):
            part = connection.recv(1 << 16)
            if not part:
                break
            data += part
        taken.append(data)


async def _sent(dialer: Dialer, context: ClientContext, listener: socket.socket, alpn: list[bytes]) -> bytes:
    """What the engine sends first."""
    taken: list[bytes] = []
    reader = threading.Thread(target=_take, args=(listener, taken))
    reader.start()
    address = SocketAddress("127.0.0.1", listener.getsockname()[1])
    connected = await dialer.engine.connect(dialer.near, [address], timeout=HANG_SECONDS)
    with contextlib.suppress(ProxyError):
        await connected.stream.connect_tls(
            context, host=_HOST, port=address.port, alpn=alpn, timeout=HANG_SECONDS
        )
    connected.stream.close()
    reader.join()
    return taken[0]


async def _run(number: int, examples: int) -> tuple[int, int]:
    """How many were refused, and how many sent."""
    base = dataclasses.replace(_CATALOG.require("chrome-120", source="test", key=""), alps=())
    loop = asyncio.get_running_loop()
    counts = {"refused": 0, "sent": 0}
    async with dialing() as dialer:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(HANG_SECONDS)

            @seed(number)
            @settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @given(mutated())
            def check(blob: bytes) -> None:
                spec = dataclasses.replace(base, template=blob)
                try:
                    context = ClientContext(spec, None, verify_chain=False, verify_host=False)
                except EngineError as error:
                    counts["refused"] += 1
                    found = _OFFSET.search(str(error))
                    if found is not None and int(found[1]) > len(blob):
                        raise AssertionError(f"{error}: {blob.hex()}") from None
                    return
                counts["sent"] += 1
                sending = _sent(dialer, context, listener, [b"h2", b"http/1.1"])
                sent = asyncio.run_coroutine_threadsafe(sending, loop).result(HANG_SECONDS)
                try:
                    # The record's version is the template's, whatever it is.
                    parse_client_hello(sent[:1] + b"\3\1" + sent[3:])
                except HelloError as problem:
                    raise AssertionError(f"{problem}: {blob.hex()} wrote {sent.hex()}") from None

            await asyncio.to_thread(check)
    return counts["refused"], counts["sent"]


def main(number: int, examples: int) -> None:
    refused, sent = asyncio.run(_run(number, examples))
    print(f"refused {refused}, sent {sent}")
    assert refused
    assert sent


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
