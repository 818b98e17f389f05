"""nginx as an origin, where it is installed: one worker, a file of 256 MiB, the native origin's certificate.

"Direct" is as fast as the origin lets it be. Ours costs a fraction of what a web server does, so that client
and origin alone can fill two cores, and nothing in between has room; nginx shows what a proxy leaves of a
usual server's throughput.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.bench.spawn import BenchError, Origin, free_port, origin, running

BODY_BYTES = 256 << 20
_CONFIG = """
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{
    listen 127.0.0.1:{port} ssl;
    root {dir}/www;
    ssl_certificate {dir}/leaf.pem;
    ssl_certificate_key {dir}/leaf.key;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
  }}
}}
"""


def program() -> str | None:
    """Where nginx is; in sbin, which is not on everybody's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin")


@contextlib.contextmanager
def nginx(native_origin: Path, directory: Path) -> Iterator[Origin]:
    """nginx with the body that bench-load expects. Raises `BenchError`."""
    command = program()
    if command is None:
        raise BenchError("nginx is not installed")
    body = directory / "www" / "bytes" / str(BODY_BYTES) / "0"
    body.parent.mkdir(parents=True)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755)  # its worker is another user
    with origin(native_origin, directory, "--body", str(body), "--body-bytes", str(BODY_BYTES)) as ours:
        ca = ours.ca
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_CONFIG.format(dir=directory, port=port), encoding="utf-8")
    with running(
        "nginx", [command, "-c", str(config), "-e", f"{directory}/error.log"], port, directory
    ) as up:
        yield Origin(up.pid, port, 0, ca)
