"""The real Collector, with docker/collector.yaml but for the addresses: what Prometheus and Jaeger would get.

The program is built from Go modules, once, as `tests.otlp.collector` does it. Where it can neither be
found nor built the tests skip and say why.
"""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from ruamel.yaml import YAML

from tests.docker.dockerfile import DOCKER
from tests.docker.translated import series
from tests.otlp import traffic
from tests.otlp.collector import BUILD_SECONDS, NoCollectorError, find
from tests.otlp.receiver import free_port
from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import HANG_SECONDS, Serve, clean_environment
from tests.peers.tools import require

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)  # the Collector may have to be built first

_SAMPLE = re.compile(r"^(polytls_\w+)\{(.*)\} (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="')
_ATTEMPTS = 3  # a free port may be taken by somebody else before the Collector has it

NOT_PROVOKED = {"polytls_limits_hit_total", "polytls_events_dropped_total"}
"""They have a value once it has happened."""


@dataclass(frozen=True)
class Got:
    """What Prometheus reads, and the names of the spans that Jaeger was sent."""

    scraped: str
    spans: list[str]
    tunnels: int


class Jaeger(trace_service_pb2_grpc.TraceServiceServicer):
    """The service that Jaeger offers to a Collector: OTLP over gRPC."""

    def __init__(self) -> None:
        self.spans: list[str] = []
        self.port = 0

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the service has it
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [span.name for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def jaeger() -> Iterator[Jaeger]:
    service = Jaeger()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(None).wait(HANG_SECONDS)


def configuration(jaeger_port: int) -> tuple[dict[str, Any], int, int]:
    """docker/collector.yaml with addresses of this machine; the ports for OTLP/HTTP and for Prometheus."""
    found: dict[str, Any] = YAML(typ="safe").load((DOCKER / "collector.yaml").read_text(encoding="utf-8"))
    otlp, scrape = free_port(), free_port()
    protocols = found["receivers"]["otlp"]["protocols"]
    protocols["http"]["endpoint"] = f"127.0.0.1:{otlp}"
    protocols["grpc"]["endpoint"] = f"127.0.0.1:{free_port()}"
    found["exporters"]["otlp_grpc/jaeger"]["endpoint"] = f"127.0.0.1:{jaeger_port}"
    found["exporters"]["prometheus"]["endpoint"] = f"127.0.0.1:{scrape}"
    return found, otlp, scrape


@pytest.fixture(scope="module")
def collector(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    try:
        program = find()
    except NoCollectorError as reason:
        pytest.skip(str(reason))
    directory = tmp_path_factory.mktemp("collector")
    log = directory / "log"
    for _ in range(_ATTEMPTS):
        settings, otlp, scrape = configuration(jaeger.port)
        path = directory / "config.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(settings, file)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(program), "--config", f"file:{path}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(),
            )
        if answers(scrape, process):
            yield otlp, scrape
            process.terminate()
            process.wait(HANG_SECONDS)
            return
        process.kill()
        process.wait()
    raise RuntimeError(f"the Collector did not start: {log.read_text(encoding='utf-8')}")


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + HANG_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            scrape_of(port)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def scrape_of(port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=HANG_SECONDS) as reply:
        text: bytes = reply.read()
    return text.decode()


@pytest.fixture(scope="module")
def got(collector: tuple[int, int], jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Got:
    """One run of requests that go well, and what came out at the other ends."""
    require("curl")
    require("openssl")
    otlp, scrape = collector
    authority = Authority(tmp_path_factory.mktemp("origins"))
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    options = ("--resolve", "*.lab.test:127.0.0.1", "--upstream-ca-file", str(authority.pem))
    with Origin(origin_context(authority.issue("*.lab.test", "127.0.0.1"))) as origin:
        proxy = Serve(tmp_path_factory.mktemp("ca"), *options, environ=environ)
        try:
            traffic.good(traffic.Lab(proxy, authority, origin))
        finally:
            assert proxy.stop() == 0, proxy.notes
    tunnels = len(proxy.all_records())
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        text = scrape_of(scrape)
        heads = [name for name in jaeger.spans if name.startswith("CONNECT")]
        # One tunnel of `good` has a caller that does not want its trace.
        if ended(text) == tunnels and len(heads) >= tunnels - 1:
            return Got(text, list(jaeger.spans), tunnels)
        assert time.monotonic() < deadline, (ended(text), len(heads), tunnels)
        time.sleep(0.1)


def ended(text: str) -> float:
    """How many tunnels have ended, as Prometheus would sum it up."""
    return sum(
        float(value) for name, _, value in _SAMPLE.findall(text) if name == "polytls_tunnels_ended_total"
    )


def test_metrics_have_the_names_that_the_dashboard_asks_for(got: Got) -> None:
    scraped = {name for name, _, _ in _SAMPLE.findall(got.scraped)}
    known = set(series())
    assert scraped <= known
    assert known - scraped <= NOT_PROVOKED


def test_metrics_have_the_labels_that_the_dashboard_asks_for(got: Got) -> None:
    labels = series()
    for name, text, _ in _SAMPLE.findall(got.scraped):
        assert labels[name] <= set(_LABEL.findall(text)), name


def test_job_and_instance_are_those_of_the_proxy(got: Got) -> None:
    assert set(re.findall(r'job="([^"]*)"', got.scraped)) == {"polytls"}
    assert len(set(re.findall(r'instance="([^"]*)"', got.scraped))) == 1


def test_jaeger_gets_every_step(got: Got) -> None:
    assert {"head", "resolve", "connect", "hello", "upstream handshake", "relay"} <= set(got.spans)
