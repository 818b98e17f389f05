"""Clients that nobody here wrote, each with a TLS stack and habits of its own."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
import requests

from tests.peers.clients import client_context
from tests.peers.serve import HANG_SECONDS, Serve, assert_went_well, clean_environment
from tests.peers.tools import require, s_server

if TYPE_CHECKING:
    from tests.peers.origin import Origin


def test_requests(either: Serve, origin: Origin, host: str) -> None:
    url = f"https://{host}:{origin.port}"

    def talk() -> None:  # connections of urllib3 are closed when nobody holds an answer any more
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"https": either.url}
            session.verify = str(either.root_pem)
            for size in (1, 100_000):  # over one tunnel
                assert len(session.get(f"{url}/bytes/{size}", timeout=HANG_SECONDS).content) == size
            answer = session.post(f"{url}/", data=b"x" * 70_000, timeout=HANG_SECONDS)
            assert answer.json()["size"] == 70_000

    talk()
    assert_went_well(either.record(host))


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
def test_httpx(either: Serve, origin: Origin, host: str, http2: bool, version: str) -> None:
    context = ssl.create_default_context(cafile=str(either.root_pem))
    with httpx.Client(
        proxy=either.url, verify=context, http2=http2, trust_env=False, timeout=HANG_SECONDS
    ) as client:
        for _ in range(2):
            answer = client.get(f"https://{host}:{origin.port}/")
            assert answer.http_version == version
            assert answer.json()["sni"] == host
    assert_went_well(either.record(host))


def test_aiohttp(either: Serve, origin: Origin, host: str) -> None:
    context = client_context(either.root_pem)

    async def get() -> tuple[str, int]:
        timeout = aiohttp.ClientTimeout(HANG_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            # Four at once: four tunnels.
            answers = await asyncio.gather(*(one(session) for _ in range(4)))
        return answers[0], len(set(answers))

    async def one(session: aiohttp.ClientSession) -> str:
        url = f"https://{host}:{origin.port}/"
        async with session.get(url, proxy=either.url, ssl=context) as answer:
            return str(json.loads(await answer.text())["sni"])

    assert asyncio.run(get()) == (host, 1)
    for record in either.records(host, 4):
        assert_went_well(record)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(either: Serve, origin: Origin, host: str, version: str) -> None:
    command = [require("openssl"), "s_client", "-proxy", either.address, "-connect", f"{host}:{origin.port}"]
    checks = ["-servername", host, "-CAfile", str(either.root_pem), "-verify_return_error", "-x509_strict"]
    command += [*checks, "-verify_hostname", host, version, "-alpn", "http/1.1", "-ign_eof"]
    request = f"GET /bytes/3000 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    done = subprocess.run(
        command, input=request.encode(), capture_output=True, timeout=HANG_SECONDS, env=clean_environment()
    )
    output = done.stdout.decode("latin-1")
    assert done.returncode == 0, done.stderr
    assert "Verify return code: 0 (ok)" in output
    assert "ALPN protocol: http/1.1" in output
    assert "Content-Length: 3000" in output
    record = either.record(host)
    assert_went_well(record)
    if record["mode"] == "mitm":
        assert record["client_tls"]["version"] == f"TLS{version[-3:].replace('_', '.')}"
        assert record["upstream_tls"]["version"] == "TLS1.3"


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_openssl_on_both_sides(either: Serve, certificate: Path, host: str, suite: str) -> None:
    """Neither end is Python, and s_server -rev answers each line with its reverse."""
    with s_server(certificate, "-rev", "-ciphersuites", suite) as port:
        command = [require("openssl"), "s_client", "-proxy", either.address, "-connect", f"{host}:{port}"]
        command += ["-servername", host, "-CAfile", str(either.root_pem), "-verify_return_error", "-quiet"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            for line in (b"polytls\n", b"0123456789\n"):
                client.stdin.write(line)
                client.stdin.flush()
                assert client.stdout.readline() == line.strip()[::-1] + b"\n"
            client.stdin.close()
            client.terminate()
    record = either.record(host)
    assert (record["bytes_up"], record["bytes_down"]) > (0, 0)
    if record["mode"] == "mitm":
        assert (record["bytes_up"], record["bytes_down"]) == (19, 19)
        assert record["upstream_tls"]["cipher"] == suite


def test_chromium(mitm: Serve, origin: Origin, host: str, tmp_path: Path) -> None:
    """A browser: HTTP/2, post-quantum key shares, its own opinion of certificates, several hosts at once."""
    chromium, certutil = require("chromium"), require("certutil")
    database = tmp_path / ".pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run([certutil, "-d", f"sql:{database}", "-N", "--empty-password"], check=True)
    trust = ["-A", "-t", "C,,", "-n", "polytls", "-i", str(mitm.root_pem)]
    subprocess.run([certutil, "-d", f"sql:{database}", *trust], check=True)
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("XDG_")}
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    done = subprocess.run(
        [
            chromium,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--proxy-server={mitm.url}",
            "--proxy-bypass-list=<-loopback>",
            "--dump-dom",
            f"https://{host}:{origin.port}/",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        env={**environment, "HOME": str(tmp_path), "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
    )
    assert f'"sni": "{host}"' in done.stdout, (done.stdout, done.stderr[-2000:])
    record = mitm.records(host)[0]
    assert record["client_tls"]["alpn"] == record["upstream_tls"]["alpn"] == "h2"
    assert record["client_tls"]["version"] == "TLS1.3"
    assert record["client_tls"]["group"] == "X25519MLKEM768"
