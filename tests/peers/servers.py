"""TLS servers that nobody here wrote, each a process on a port of its own: GnuTLS, Go, the JDK, Node.

What is absent skips its test: only OpenSSL's (tests.peers.tools) are required where POLYTLS_REQUIRE_TOOLS=1.
Each server ends with its input, so that none outlives the tests.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.peers.serve import HANG_SECONDS, clean_environment

PROGRAMS = Path(__file__).parent / "programs"
_PASSWORD = "changeit"  # of a key that is made for one run
_ATTEMPTS = 5

Server = Callable[[Path, Path], "contextlib.AbstractContextManager[int]"]
"""(certificate with its key, a directory) -> the port, while it runs."""


def installed(name: str) -> str:
    """The program's path; the test is skipped without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@contextlib.contextmanager
def gnutls(certificate: Path, directory: Path, *options: str) -> Iterator[int]:
    """gnutls-serv. It takes no port 0: one that was free a moment ago is tried, or the next."""
    program = installed("gnutls-serv")
    for _ in range(_ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        pem = ["--x509certfile", str(certificate), "--x509keyfile", str(certificate)]
        command = [program, "--http", "--port", str(port), *pem, *options]
        with _process(command, r"listening on IPv4 .* port (\d+)\.\.\.done|(failed|error)") as found:
            if found is not None and found[1]:
                yield port
                return
    pytest.fail("gnutls-serv does not listen")


@contextlib.contextmanager
def go(certificate: Path, directory: Path) -> Iterator[int]:
    program = directory / "serve-go"
    command = [installed("go"), "build", "-o", str(program), str(PROGRAMS / "serve.go")]
    subprocess.run(command, check=True, capture_output=True, timeout=2 * HANG_SECONDS)
    with _telling([str(program), str(certificate)]) as port:
        yield port


@contextlib.contextmanager
def go_ech(certificates: Sequence[Path], directory: Path, **options: object) -> Iterator[int]:
    """Go's TLS with Encrypted ClientHello; `options` as programs/ech.go has them. It answers with JSON."""
    given = json.dumps({"certificates": [str(path) for path in certificates], **options})
    with go_program(PROGRAMS / "ech.go", directory, given) as port:
        yield port


@contextlib.contextmanager
def go_program(source: Path, directory: Path, *arguments: str) -> Iterator[int]:
    """A program in one file, built in `directory` once, that tells its port."""
    program = directory / f"{source.stem}-go"
    if not program.exists():
        command = [installed("go"), "build", "-o", str(program), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=2 * HANG_SECONDS)
    with _telling([str(program), *arguments]) as port:
        yield port


@contextlib.contextmanager
def java(certificate: Path, directory: Path) -> Iterator[int]:
    store = directory / f"{certificate.stem}.p12"
    store.write_bytes(_keystore(certificate))
    with _telling([installed("java"), str(PROGRAMS / "Serve.java"), str(store), _PASSWORD]) as port:
        yield port


@contextlib.contextmanager
def node(certificate: Path, directory: Path) -> Iterator[int]:
    with _telling([installed("node"), str(PROGRAMS / "serve.js"), str(certificate)]) as port:
        yield port


@contextlib.contextmanager
def _telling(command: Sequence[str]) -> Iterator[int]:
    """A program that tells its port."""
    with _process(command, r"^PORT (\d+)") as found:
        assert found is not None, f"{command[0]} did not start"
        yield int(found[1])


@contextlib.contextmanager
def _process(command: Sequence[str], expected: str) -> Iterator[re.Match[str] | None]:
    """A running program, once a line of it matches `expected`; None: it ended first."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it ends when its input does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found = None
    try:
        for line in process.stdout:
            found = re.search(expected, line)
            if found is not None:
                break
        threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
        yield found
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
        process.stdin.close()
        process.stdout.close()


def _drain(stream: IO[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read(4096):
            pass


def _keystore(certificate: Path) -> bytes:
    pem = certificate.read_bytes()
    key = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE KEY") :], None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    return pkcs12.serialize_key_and_certificates(
        b"server",
        key,
        x509.load_pem_x509_certificate(pem),
        None,
        serialization.BestAvailableEncryption(_PASSWORD.encode()),
    )
