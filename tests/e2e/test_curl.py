"""curl through both modes: HTTP/1.1 and HTTP/2, uploads, downloads, many at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.peers.origin import Origin, origin_context, pattern
from tests.peers.serve import Serve, assert_went_well
from tests.peers.tools import fetch, nginx, run_curl, s_server

UPLOAD_BYTES = 50_000_000
PARALLEL = 100


@pytest.mark.parametrize(("option", "http"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_get(either: Serve, origin: Origin, host: str, option: str, http: str) -> None:
    fetched = fetch(either, option, f"https://{host}:{origin.port}/")
    assert (fetched.status, fetched.http) == (200, http)
    record = either.record(host)
    assert_went_well(record)
    assert (record["reply"], record["port"]) == (200, origin.port)
    assert record["upstream"] == f"127.0.0.1:{origin.port}"
    if http == "1.1":  # curl 7.88 ends HTTP/2 connections without close_notify, which the record tells
        assert record["truncated"] is False
    if record["mode"] == "mitm":
        assert record["sni"] == host
        protocol = {"1.1": "http/1.1", "2": "h2"}[http]
        assert record["upstream_tls"]["alpn"] == record["client_tls"]["alpn"] == protocol


def test_a_file_of_50_mb_arrives_as_it_was_sent(
    either: Serve, origin: Origin, host: str, tmp_path: Path
) -> None:
    data = pattern(UPLOAD_BYTES)
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    for option in ("--http1.1", "--http2"):
        fetched = fetch(either, option, "--data-binary", f"@{upload}", f"https://{host}:{origin.port}/digest")
        assert json.loads(fetched.body) == {"size": UPLOAD_BYTES, "sha256": hashlib.sha256(data).hexdigest()}
    for record in either.records(host, 2):
        assert_went_well(record)
        assert record["bytes_up"] > UPLOAD_BYTES


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_a_download_arrives_as_it_was_sent(either: Serve, origin: Origin, host: str, option: str) -> None:
    size = 20_000_003
    fetched = fetch(either, option, f"https://{host}:{origin.port}/bytes/{size}")
    assert hashlib.sha256(fetched.body).digest() == hashlib.sha256(pattern(size)).digest()
    assert either.record(host)["bytes_down"] > size


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_a_hundred_at_once(either: Serve, origin: Origin, host: str, option: str) -> None:
    # By name they are 100 hosts: curl would carry requests for one host over one HTTP/2 connection.
    names = [f"n{number}-{host}" for number in range(PARALLEL)]
    urls = [f"https://{name}:{origin.port}/bytes/10000" for name in names]
    parallel = ("--parallel", "--parallel-immediate", "--parallel-max", str(PARALLEL), "--no-progress-meter")
    done = run_curl(either, option, *parallel, "--fail", "--write-out", "%{stderr}%{http_code}\n", *urls)
    assert done.stderr.decode().split() == ["200"] * PARALLEL
    assert done.stdout.count(pattern(10000)[:64]) == PARALLEL
    for name in names:
        assert_went_well(either.record(name))


@pytest.mark.parametrize(("option", "http"), [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")])
def test_nginx(either: Serve, certificate: Path, host: str, tmp_path: Path, option: str, http: str) -> None:
    with nginx(tmp_path, certificate) as port:
        data = pattern(3_000_000)
        (tmp_path / "files" / "data").write_bytes(data)
        url = f"https://{host}:{port}"
        answers = fetch(either, option, f"{url}/")
        assert answers.body.decode() == f"{http} TLSv1.3 {host}\n"
        assert fetch(either, option, f"{url}/files/data").body == data
        for record in either.records(host, 2):  # before nginx ends, and cuts what is open
            assert_went_well(record)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_server(either: Serve, certificate: Path, host: str, version: str) -> None:
    with s_server(certificate, "-www", version) as port:
        fetched = fetch(either, f"https://{host}:{port}/")
    shown = f"TLSv{version[-3:].replace('_', '.')}"
    assert fetched.status == 200
    assert shown in fetched.body.decode()
    record = either.record(host)
    if record["mode"] == "mitm":
        # s_server ends HTTP/1.0 answers without ALPN: both sides count as http/1.1.
        assert record["upstream_tls"]["version"] == shown.replace("v", "")
        assert record["upstream_tls"]["alpn"] is None
        assert record["client_tls"]["version"] == "TLS1.3"


def test_ipv6(either: Serve, certificate: Path) -> None:
    with Origin(origin_context(certificate), host="::1") as origin:
        fetched = fetch(either, f"https://[::1]:{origin.port}/")
    assert fetched.status == 200
    record = next(record for record in either.records("::1") if record["port"] == origin.port)
    assert record["upstream"] == f"[::1]:{origin.port}"
    assert_went_well(record)


def test_an_ipv4_literal(either: Serve, origin: Origin) -> None:
    assert fetch(either, f"https://127.0.0.1:{origin.port}/").status == 200
