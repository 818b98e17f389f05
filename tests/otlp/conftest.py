"""A collector, and a proxy whose telemetry it has got: all of it, of one run of `traffic`.

Each test of `seen` runs against the real OpenTelemetry Collector, over HTTP and over gRPC, and against the
receiver on the protobuf package. Where the Collector can neither be found nor built, its runs are skipped,
and say why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.errors import Kind
from tests.otlp import traffic
from tests.otlp.collector import Collector, NoCollectorError
from tests.otlp.receiver import Receiver
from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import Record, Serve
from tests.peers.tools import require

if TYPE_CHECKING:
    from tests.otlp.exported import Exported

RESOURCE = "deployment.environment.name=lab,service.instance.id=from-variable"


@dataclass(frozen=True)
class Run:
    """What a collector got of a run of traffic, and what the proxy logged of it. `provoked`: the failures."""

    collector: str
    exported: Exported
    records: list[Record]
    provoked: list[Kind]
    notes: str


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("origins"))


@pytest.fixture(scope="session")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca")


@pytest.fixture(scope="session")
def origin(authority: Authority) -> Iterator[Origin]:
    with Origin(origin_context(authority.issue("*.lab.test", "127.0.0.1"))) as origin:
        yield origin


@pytest.fixture(scope="session")
def options(authority: Authority) -> tuple[str, ...]:
    return ("--resolve", "*.lab.test:127.0.0.1", "--upstream-ca-file", str(authority.pem))


@pytest.fixture(scope="session", params=["collector-http", "collector-grpc", "receiver"])
def seen(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    origin: Origin,
    ca_dir: Path,
    options: tuple[str, ...],
) -> Run:
    """One run of everything."""
    require("curl")
    require("openssl")
    directory = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as stack:
        collector: Collector | Receiver
        if request.param == "receiver":
            collector = stack.enter_context(Receiver())
        else:
            try:
                collector = stack.enter_context(Collector(directory))
            except NoCollectorError as reason:
                pytest.skip(str(reason))
        grpc = request.param == "collector-grpc" and isinstance(collector, Collector)
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc_url if grpc else collector.url,  # type: ignore[union-attr]
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if grpc else "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_RESOURCE_ATTRIBUTES": RESOURCE,
        }
        config = traffic.write_config(directory)
        proxy = Serve(ca_dir, *options, "--config", str(config), *traffic.DRAIN_OPTIONS, environ=environ)
        stack.callback(proxy.stop)
        lab = traffic.Lab(proxy, authority, origin)
        traffic.good(lab)
        provoked = traffic.bad(lab)
        with traffic.open_at_the_end(lab):
            assert proxy.stop() == 0
        records = proxy.all_records()
        # The proxy has ended and has sent everything; the Collector's file is written a moment later.
        exported = collector.wait(
            lambda found: (
                sum(log.event == "polytls.tunnel" for log in found.logs) >= len(records)
                and len(found.tunnels()) >= len(records) - 1
                and found.last("polytls.tunnels.ended", polytls_outcome="drained")
            )
        )
        return Run(collector.kind, exported, records, [*provoked, Kind.DRAINED], proxy.notes)
