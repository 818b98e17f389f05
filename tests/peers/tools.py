"""Programs that nobody here wrote: curl, OpenSSL's s_server, nginx. Each on a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.peers.serve import HANG_SECONDS, Serve, clean_environment

_ALSO_IN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nginx is; not on everybody's PATH."""


def require(name: str) -> str:
    """The program's path. Without it the test is skipped, or fails where POLYTLS_REQUIRE_TOOLS=1."""
    path = shutil.which(name) or shutil.which(name, path=_ALSO_IN)
    if path is None:
        problem = f"{name} is not installed"
        if os.environ.get("POLYTLS_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{problem}, and POLYTLS_REQUIRE_TOOLS=1")
        pytest.skip(problem)
    return path


@dataclass(frozen=True)
class Fetched:
    """What a curl that ended well wrote with --write-out, and the answer's body."""

    status: int
    http: str  # "1.1", "2"
    body: bytes


def run_curl(proxy: Serve, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """curl through `proxy`, trusting its root; it must end with `code`."""
    trusted = ["--cacert", str(proxy.root_pem)] if proxy.root_pem.exists() else []
    return curl("-x", proxy.url, *trusted, *arguments, code=code)


def curl(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [require("curl"), "-q", "-sS", "--max-time", str(HANG_SECONDS), *arguments]
    done = subprocess.run(
        command, capture_output=True, env=clean_environment(), timeout=2 * HANG_SECONDS, check=False
    )
    assert done.returncode == code, (done.returncode, done.stderr.decode(errors="replace"))
    return done


def fetch(proxy: Serve, *arguments: str) -> Fetched:
    """One answer by curl, to its last byte."""
    done = run_curl(proxy, "--write-out", "\n%{http_code} %{http_version}", *arguments)
    body, _, written = done.stdout.rpartition(b"\n")
    status, http = written.decode().split()
    return Fetched(int(status), http, body)


@contextlib.contextmanager
def s_server(certificate: Path, *options: str) -> Iterator[int]:
    """`openssl s_server` on a free port, which it tells. It serves one client after the other."""
    command = [require("openssl"), "s_server", "-accept", "127.0.0.1:0", "-cert", str(certificate)]
    process = subprocess.Popen(
        [*command, *options],
        stdin=subprocess.PIPE,  # it ends when its input does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("ACCEPT "):
                break
        assert said, process.wait()
        assert said[-1].startswith("ACCEPT "), said
        drain = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
        drain.start()
        yield int(said[-1].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
        process.stdin.close()
        process.stdout.close()


def _drain(stream: IO[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read(4096):
            pass


@contextlib.contextmanager
def nginx(directory: Path, certificate: Path, *, http2: bool = True) -> Iterator[int]:
    """nginx on a free port. It inherits the listening socket, so that nobody can take the port before it.

    ``/`` answers with the protocol; ``/files/`` serves what is in `directory`; a POST is answered as well.
    """
    program = require("nginx")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port: int = listener.getsockname()[1]
    config = directory / "nginx.conf"
    user = "user root root;" if os.geteuid() == 0 else ""  # else its worker may not read what tests wrote
    protocol = " http2" if http2 else ""
    config.write_text(_NGINX.format(port=port, http2=protocol, pem=certificate, dir=directory, user=user))
    (directory / "files").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [program, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**clean_environment(), "NGINX": f"{listener.fileno()};"},
        pass_fds=(listener.fileno(),),
    )
    listener.close()
    try:
        # The socket listens already: who connects early waits in its backlog.
        yield port
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors


_NGINX = """
daemon off;
worker_processes 1;
{user}
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl{http2} backlog=1024;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ default_type text/plain; return 200 "$server_protocol $ssl_protocol $ssl_server_name\n"; }}
    location /files/ {{ root {dir}; }}
  }}
}}
"""


def trusting_environment(root_pem: Path, extra: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """For programs that take their trusted roots from OpenSSL's variables."""
    return {**clean_environment(), "SSL_CERT_FILE": str(root_pem), **dict(extra)}
