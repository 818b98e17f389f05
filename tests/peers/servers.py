"""TLS servers that nobody here wrote, each a process on a port of its own: GnuTLS, NSS, Go, the JDK, Node.

`limited` has them, and OpenSSL's, with one version of TLS, and with one group that nobody has a share of.

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
import sys
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
from tests.peers.tools import s_server

PROGRAMS = Path(__file__).parent / "programs"
_PASSWORD = "changeit"  # of a key that is made for one run
_NICKNAME = "server"
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
    """gnutls-serv."""
    pem = ["--x509certfile", str(certificate), "--x509keyfile", str(certificate)]
    command = [installed("gnutls-serv"), "--http", *pem, *options, "--port"]
    with _on_a_free_port(command, r"listening on IPv4 .* port (\d+)\.\.\.done|(failed|error)") as port:
        yield port


@contextlib.contextmanager
def nss(certificate: Path, directory: Path, *options: str) -> Iterator[int]:
    """selfserv, with session tickets."""
    program = installed("selfserv")
    database = directory / f"nss-{certificate.stem}"
    if not database.exists():
        database.mkdir()
        store = _keystore_file(certificate, directory)
        key = ["-i", str(store), "-W", _PASSWORD, "-K", ""]
        for command in (
            [installed("certutil"), "-N", "--empty-password"],
            [installed("pk12util"), *key],
        ):
            made = [*command, "-d", f"sql:{database}"]
            subprocess.run(made, check=True, capture_output=True, timeout=HANG_SECONDS)
    kind = "-n" if isinstance(_key_of(certificate), rsa.RSAPrivateKey) else "-e"
    command = [program, "-d", f"sql:{database}", kind, _NICKNAME, "-u", "-v", *options, "-p"]
    with _on_a_free_port(command, r"(About to call accept)|(rror)") as port:
        yield port


@contextlib.contextmanager
def go_ech(certificates: Sequence[Path], directory: Path, **options: object) -> Iterator[int]:
    """Go's TLS with Encrypted ClientHello; `options` as programs/ech.go has them. It answers with JSON."""
    given = json.dumps({"certificates": [str(path) for path in certificates], **options})
    with go_program(PROGRAMS / "ech.go", directory, given) as port:
        yield port


@contextlib.contextmanager
def go(certificate: Path, directory: Path, *options: str) -> Iterator[int]:
    with go_program(PROGRAMS / "serve.go", directory, *options, str(certificate)) as port:
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
def java(certificate: Path, directory: Path, *options: str) -> Iterator[int]:
    """`options` are the virtual machine's. The keystore has the whole chain that the file holds."""
    store = _keystore_file(certificate, directory)
    with _telling([installed("java"), *options, str(PROGRAMS / "Serve.java"), str(store), _PASSWORD]) as port:
        yield port


@contextlib.contextmanager
def node(certificate: Path, directory: Path) -> Iterator[int]:
    with _telling([installed("node"), str(PROGRAMS / "serve.js"), str(certificate)]) as port:
        yield port


@contextlib.contextmanager
def tlslite(certificate: Path, method: str) -> Iterator[int]:
    """tlslite-ng from 0.9 on, TLS 1.3 alone, which compresses its certificate by `method`."""
    pytest.importorskip("tlslite", minversion="0.9.0b1")
    program = str(PROGRAMS / "serve_tlslite.py")
    with _telling([sys.executable, program, method, str(certificate)]) as port:
        yield port


@contextlib.contextmanager
def openssl(certificate: Path, directory: Path, *options: str) -> Iterator[int]:
    with s_server(certificate, "-www", *options) as port:
        yield port


LIBRARIES: dict[str, Callable[..., contextlib.AbstractContextManager[int]]] = {
    "openssl": openssl,
    "gnutls": gnutls,
    "nss": nss,
    "go": go,
    "java": java,
}

_VERSION_OPTIONS: dict[str, Callable[[str], list[str]]] = {
    "openssl": lambda version: [f"-tls{version.replace('.', '_')}"],
    "nss": lambda version: ["-V", f"tls{version}:tls{version}"],
    "go": lambda version: ["-version", version],
    "java": lambda version: [f"-Djdk.tls.server.protocols=TLSv{version}"],
}
_P384_OPTIONS = {
    "openssl": ["-groups", "P-384"],
    "nss": ["-I", "P384"],
    "go": ["-p384"],
    "java": ["-Djdk.tls.namedGroups=secp384r1"],
}


@contextlib.contextmanager
def limited(
    library: str, certificate: Path, directory: Path, version: str, *, p384: bool = False
) -> Iterator[int]:
    """The server of one of `LIBRARIES` with one `version` ("1.2", "1.3"); `p384`: with that group alone."""
    if library == "gnutls":
        priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}" + (":-GROUP-ALL:+GROUP-SECP384R1" if p384 else "")
        options = [f"--priority={priority}"]
    else:
        options = _VERSION_OPTIONS[library](version) + (_P384_OPTIONS[library] if p384 else [])
    with LIBRARIES[library](certificate, directory, *options) as port:
        yield port


@contextlib.contextmanager
def _on_a_free_port(command: Sequence[str], expected: str) -> Iterator[int]:
    """A program that takes no port 0: one that was free a moment ago is tried, or the next."""
    for _ in range(_ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        with _process([*command, str(port)], expected) as found:
            if found is not None and found[1]:
                yield port
                return
    pytest.fail(f"{command[0]} does not listen")


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


def _key_of(certificate: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    pem = certificate.read_bytes()
    key = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE KEY") :], None)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    return key


def _keystore_file(certificate: Path, directory: Path) -> Path:
    """A PKCS#12 file with the key and the chain of a PEM file."""
    first, *others = x509.load_pem_x509_certificates(certificate.read_bytes())
    encryption = serialization.BestAvailableEncryption(_PASSWORD.encode())
    path = directory / f"{certificate.stem}.p12"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            _NICKNAME.encode(), _key_of(certificate), first, others or None, encryption
        )
    )
    return path
