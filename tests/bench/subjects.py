"""What is measured: PolyTLS in several settings, the yardstick, and peers where they are installed.

A subject is a command with places to fill in: {port}, {dir} (scratch), {ca} (the origin's root), {origin}
(its address), {bin} (native programs), {python}, {polytls}, {here}. A configuration may name {collector}.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.spawn import BenchError, Origin, Running, free_port, running

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ROOT / "build" / "bench-peers"
"""Where `make bench-peers` installs what others have made."""
STUCK = "otlp-stuck"
"""Ends the name of who exports to a collector that never answers."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A proxy that can be started and measured."""

    name: str
    what: str  # for people
    command: str
    mitm: bool
    by_name: bool = False  # CONNECT names the host; else the origin's address
    config: str = ""  # written to {dir}/bench.toml
    peer: bool = False  # nobody of ours; left out where it is not installed
    max_tunnels: int = 9900  # a descriptor limit of 20,000, two each
    wait_s: float = 30.0

    def with_arguments(self, name: str, arguments: str) -> Subject:
        """The same with more on its command line."""
        return Subject(
            name, self.what, f"{self.command} {arguments}", self.mitm, self.by_name, self.config, self.peer
        )


_SERVE = (
    "{polytls} serve --config {dir}/bench.toml --listen 127.0.0.1:{port} --ca-dir {dir}/ca --log-format json"
)
_LAB = """
[proxy.upstream]
ca_file = '{ca}'
[proxy.upstream.resolve]
'*.test' = '{host}'
"""
_X25519 = """
[profiles.bench-x25519]
base = 'default'
curves_list = ['X25519', 'P-256', 'P-384']
key_shares = ['X25519']
alpn_protos = ['h2', 'http/1.1']
enable_ech_grease = false
"""
_MITMDUMP = (
    "{mitmdump} -q --listen-host 127.0.0.1 -p {port} --set confdir={dir} "
    "--set ssl_verify_upstream_trusted_ca={ca} --set stream_large_bodies=1m"
)


def _polytls(name: str, what: str, arguments: str, *, mitm: bool = True, config: str = "") -> Subject:
    return Subject(name, what, f"{_SERVE} {arguments}", mitm, by_name=True, config=_LAB + _X25519 + config)


def _exporting(name: str, what: str, keys: str) -> Subject:
    """The plain one and telemetry over HTTP, to a collector that tells exporters apart by path."""
    telemetry = f"[telemetry]\nendpoint = '{{collector}}/{name}'\n{keys}\n"
    return _polytls(name, what, "--mode mitm --profile bench-x25519", config=telemetry)


ALL: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        _polytls("polytls-x25519", "PolyTLS, the yardstick's groups", "--mode mitm --profile bench-x25519"),
        _polytls(
            "polytls-ecdsa-root",
            "PolyTLS, the yardstick's groups, ECDSA root",
            "--mode mitm --profile bench-x25519",
            config="[proxy.certificate]\nroot_key = 'ecdsa'\n",
        ),
        _polytls("polytls", "PolyTLS, profile `default`", "--mode mitm --profile default"),
        _polytls("polytls-chrome", "PolyTLS, profile `chrome`", "--mode mitm --profile chrome"),
        _polytls("polytls-pass", "PolyTLS, passthrough", "--mode passthrough", mitm=False),
        _exporting("polytls-otlp-1.0", "PolyTLS, OTLP 1.0", "sampling = 1.0"),
        _exporting("polytls-otlp-0.1", "PolyTLS, OTLP 0.1", "sampling = 0.1"),
        _exporting("polytls-metrics", "PolyTLS, metrics only", "traces = false\nlogs = false"),
        _exporting(
            f"polytls-{STUCK}", "PolyTLS, OTLP to a collector that never answers", "metric_interval = 1"
        ),
        Subject(
            "yardstick",
            "yardstick",
            "{bin}/bench-yardstick --listen 127.0.0.1:{port} --origin {origin} --ca {ca}",
            mitm=True,
        ),
        Subject(
            "yardstick-pq",
            "yardstick, X25519MLKEM768",
            "{bin}/bench-yardstick --listen 127.0.0.1:{port} --origin {origin} --ca {ca} --post-quantum",
            mitm=True,
        ),
        Subject(
            "yardstick-pass",
            "yardstick, passthrough",
            "{bin}/bench-yardstick --listen 127.0.0.1:{port} --origin {origin} --mode passthrough",
            mitm=False,
        ),
        Subject("asyncio-pass", "asyncio passthrough", "{python} {here}/relay.py {port}", mitm=False),
        Subject("mitmproxy", "mitmproxy", _MITMDUMP, mitm=True, peer=True, max_tunnels=1000),
    )
}


def available(subject: Subject) -> str | None:
    """None, or why it cannot be measured here."""
    if "{mitmdump}" in subject.command and _mitmdump() is None:
        return "mitmproxy is not installed (`make bench-peers` installs it)"
    if "{collector}" in subject.config and not _otlp():
        return "OpenTelemetry is not installed (`pip install 'polytls[otlp]'` installs it)"
    return None


def version_of(subject: Subject) -> str | None:
    """A peer's version, from where it is installed."""
    if "{mitmdump}" not in subject.command:
        return None
    for found in sorted((PEERS / "mitmproxy").glob("lib/python*/site-packages/mitmproxy-*.dist-info")):
        return found.name.removeprefix("mitmproxy-").removesuffix(".dist-info")
    return None


@contextmanager
def started(
    subject: Subject, upstream: Origin, programs: Path, scratch: Path, *, collector: str = ""
) -> Iterator[Running]:
    """The subject while it serves; `collector` is a URL. Raises `BenchError`."""
    directory = scratch / subject.name.replace("/", "-")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    port = free_port()
    command = command_of(subject, port, upstream, programs, directory, collector=collector)
    with running(subject.name, command, port, directory, wait_s=subject.wait_s) as process:
        yield process


def command_of(
    subject: Subject,
    port: int,
    upstream: Origin,
    programs: Path,
    directory: Path,
    *,
    host: str = "127.0.0.1",
    collector: str = "",
) -> list[str]:
    """Its command line, for an origin at `host`; its configuration is written. Raises `BenchError`."""
    if (missing := available(subject)) is not None:
        raise BenchError(missing)
    if subject.config:
        config = subject.config.format(ca=upstream.ca, host=host, collector=collector)
        (directory / "bench.toml").write_text(config, encoding="utf-8")
    places = {
        "port": port,
        "dir": directory,
        "ca": upstream.ca,
        "origin": f"{host}:{upstream.port}",
        "bin": programs,
        "python": sys.executable,
        "polytls": f"{sys.executable} -m polytls",
        "here": HERE,
        "mitmdump": _mitmdump() or "",
    }
    return shlex.split(subject.command.format(**places))


def _otlp() -> bool:
    with contextlib.suppress(ModuleNotFoundError):  # of a package above it
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    return False


def _mitmdump() -> str | None:
    own = PEERS / "mitmproxy" / "bin" / "mitmdump"
    return str(own) if own.exists() else shutil.which("mitmdump")
