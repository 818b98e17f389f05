"""Real Chromium accepts a leaf once its user trusts the root, and only then.

The browser gets a home of its own whose NSS database holds the root, looks every host up as 127.0.0.1,
and prints the page that a Python TLS server gave it.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from polytls.pki.leaf import Leaf, LeafKeys, LeafKind, mint_leaf

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from polytls.pki.root import RootCA

PAGE = b"<!doctype html><title>leaf</title><p>the leaf was accepted</p>"
CHROMIUM_TIMEOUT_SECONDS = 120
LONG_HOST = ".".join(["a" * 30] * 3 + ["example"])


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *args: object) -> None:
        """Keep the test's output to itself."""


class _Server(ThreadingHTTPServer):
    """TLS on each accepted connection, in its own thread: a client that hangs up stops nobody."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self.context.wrap_socket(request, server_side=True) as stream:
                super().finish_request(stream, client_address)
        except OSError:  # the browser that does not trust us says so with an alert
            pass


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    with _Server(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def trust(home: Path, root: RootCA, certutil: str) -> None:
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    certificate = home / "root.pem"
    certificate.write_bytes(root.certificate_pem)
    subprocess.run([certutil, "-d", f"sql:{database}", "-N", "--empty-password"], check=True)
    subprocess.run(
        [certutil, "-d", f"sql:{database}", "-A", "-t", "C,,", "-n", "polytls", "-i", str(certificate)],
        check=True,
    )


def browse(chromium: str, home: Path, url: str) -> str:
    """Return the document that headless Chromium ends up with."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("XDG_") and "proxy" not in k.lower()},
        "HOME": str(home),
    }
    arguments = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={home / 'profile'}",
        "--host-resolver-rules=MAP * 127.0.0.1",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=CHROMIUM_TIMEOUT_SECONDS
    )
    return done.stdout


@pytest.mark.parametrize(
    ("host", "kind", "trusted"),
    [
        ("leaf.example", LeafKind.ECDSA, True),
        ("leaf.example", LeafKind.RSA, True),
        ("127.0.0.1", LeafKind.ECDSA, True),
        (LONG_HOST, LeafKind.ECDSA, True),
        ("leaf.example", LeafKind.ECDSA, False),
    ],
)
def test_chromium(
    root: RootCA,
    keys: LeafKeys,
    now: datetime,
    tmp_path: Path,
    tool: Callable[[str], str],
    server_context: Callable[[Leaf], ssl.SSLContext],
    host: str,
    kind: LeafKind,
    trusted: bool,
) -> None:
    chromium, certutil = tool("chromium"), tool("certutil")
    if trusted:
        trust(tmp_path, root, certutil)
    leaf = mint_leaf(root, keys, host, kind, now=now, days=397)
    with serving(server_context(leaf)) as port:
        document = browse(chromium, tmp_path, f"https://{host}:{port}/")
    assert ("the leaf was accepted" in document) == trusted, document
