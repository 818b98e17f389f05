"""Secrets that are planted everywhere, and looked for in every byte that is exported."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.errors import Kind
from tests.otlp import traffic
from tests.otlp.receiver import Receiver, refuse
from tests.peers.clients import client_context, connect_head, tls_tunnel
from tests.peers.serve import Serve
from tests.peers.tools import fetch, require

if TYPE_CHECKING:
    from tests.peers.origin import Origin

SECRETS = {
    "proxy password": "S3cr3t-proxy-password",
    "cookie": "S3cr3t-cookie",
    "request header": "S3cr3t-header",
    "query": "S3cr3t-query",
    "payload": "S3cr3t-payload",
    "tracestate": "s3cr3t-tracestate",
    "passphrase": "S3cr3t-passphrase",
    "collector token": "S3cr3t-collector-token",
    "token in a file": "S3cr3t-token-in-a-file",
}


def spellings(secret: str) -> set[bytes]:
    """As it is, and as it would look in base64, at each of its three positions."""
    raw = secret.encode()
    found = {raw, raw.lower(), raw.hex().encode()}
    for pad in range(3):
        encoded = base64.b64encode(b"x" * pad + raw)
        found.add(encoded[4 if pad else 0 : len(encoded) - 4])
    return found


def use(proxy: Serve, origin: Origin) -> None:
    """Everything that may carry a secret, through a tunnel and in the head of one; well and badly."""
    user = f"user:{SECRETS['proxy password']}"
    fields = ["--proxy-user", user, "--proxy-header", f"X-Note: {SECRETS['request header']}"]
    fields += ["--proxy-header", f"Cookie: c={SECRETS['cookie']}"]
    fields += ["--proxy-header", f"traceparent: 00-{traffic.CALLER_TRACE}-{traffic.CALLER_SPAN}-01"]
    fields += ["--proxy-header", f"tracestate: vendor={SECRETS['tracestate']}"]
    inner = ["--cookie", SECRETS["cookie"], "-H", f"Authorization: Bearer {SECRETS['request header']}"]
    inner += ["--data", SECRETS["payload"]]
    url = f"https://kept.lab.test:{origin.port}/?token={SECRETS['query']}"
    assert fetch(proxy, *fields, *inner, url).status == 200
    lab = traffic.Lab(proxy, None, origin)  # type: ignore[arg-type]
    authorization = base64.b64encode(user.encode()).decode()
    secret_fields = (f"Proxy-Authorization: Basic {authorization}", f"X-Note: {SECRETS['request header']}")
    head = connect_head("kept.lab.test", origin.port, *secret_fields)
    lab.raw(head.replace(b"CONNECT", b"GET"))
    lab.raw(head.replace(b"HTTP/1.1", b"HTTP/9.9"))
    lab.raw(head.replace(b"\r\nHost", b"\r\n Host"))
    lab.raw(connect_head("kept.lab.test", 1, *secret_fields))
    lab.in_tunnel("kept.lab.test", f"POST {SECRETS['query']} {SECRETS['payload']}\r\n\r\n".encode())
    context = client_context(proxy.root_pem)
    with tls_tunnel(proxy, "kept.lab.test", origin.port, context, *secret_fields) as connection:
        connection.sendall(f"GET /{SECRETS['query']} HTTP/1.1\r\n\r\n".encode())


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "refused"])
def test_no_secret_leaves(tmp_path: Path, options: tuple[str, ...], origin: Origin, taken: bool) -> None:
    require("curl")
    headers = tmp_path / "headers"
    headers.write_text(f"# for the collector\nx-token={SECRETS['token in a file']}\n")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(SECRETS["passphrase"])
    passphrase.chmod(0o600)
    config = tmp_path / "polytls.toml"
    config.write_text(
        f'[telemetry]\nheaders_file = "{headers}"\n'
        f'[proxy.certificate]\nca_key_passphrase_file = "{passphrase}"\n'
        "[log]\nfingerprint = true\n"
    )
    with Receiver(None if taken else refuse(400)) as receiver:
        proxy = Serve(
            tmp_path / "ca",
            *options,
            "--config",
            str(config),
            environ={
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{SECRETS['collector token']}",
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
            },
        )
        use(proxy, origin)
        receiver.wait_for_requests(3)
        assert proxy.stop() == 0
        exported = b"\0".join(receiver.raw)
        for body in receiver.raw:
            if body.startswith(b"\x1f\x8b"):
                exported += gzip.decompress(body)
        # The headers are sent, to the collector alone: each signal's own.
        sent = {value for request in receiver.headers for value in request.values()}
        assert f"Bearer {SECRETS['collector token']}" in sent
        assert SECRETS["token in a file"] in sent
    assert b"kept.lab.test" in exported
    assert b"polytls.tunnel" in exported
    logged = proxy.notes.encode() + repr(proxy.all_records()).encode()
    key = (tmp_path / "ca" / "private.key").read_bytes().splitlines()[1]
    assert key not in exported
    for name, secret in SECRETS.items():
        for spelling in spellings(secret):
            assert spelling not in exported, name
            assert spelling not in logged, name
    outcomes = {record["outcome"] for record in proxy.all_records()}
    assert {Kind.NOT_CONNECT.value, Kind.MALFORMED_HEAD.value, Kind.NOT_TLS.value} <= outcomes
