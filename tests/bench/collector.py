"""A collector in a process of its own, as cheap as one can be that answers right.

``python -m tests.bench.collector`` says ``READY {"port": ...}`` and ends with its standard input. The first
part of a request's path is who exports, so that one collector serves several proxies: ``/NAME/v1/traces``. It
counts what it gets and keeps nothing; ``GET /NAME`` answers with the counts as JSON, `Counts`. What is sent
to a name that ends with `STUCK` is read and never answered.

Counting takes the decoder of the protobuf package, some microseconds a tunnel. The receiver of tests/otlp
turns every message into Python values, which costs more than the proxy spends on making it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.bench.spawn import BenchError, stop
from tests.bench.subjects import ROOT, STUCK

_ENDED = "polytls.tunnels.ended"
_ASK_S = 10.0
"""For an answer of the collector to the harness, on a busy machine."""


@dataclass(slots=True)
class Counts:
    """What one exporter has sent: tunnels as each signal tells of them, and requests."""

    requests: int = 0
    spans: int = 0
    traced: int = 0  # tunnels with spans
    logged: int = 0  # log records of tunnels
    counted: int = 0  # by the last export of metrics
    metrics: int = 0  # exports of metrics


@dataclass(frozen=True, slots=True)
class Collector:
    """It while it listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counts(self, name: str) -> Counts:
        """Raises `BenchError` when it is gone."""
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.url}/{name}", timeout=_ASK_S) as answer:
                return Counts(**json.load(answer))
        except (OSError, ValueError, TypeError) as error:
            raise BenchError(f"the collector does not say what it got: {error}") from error


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A process, while it is needed. Raises `BenchError`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.collector"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("READY "):
            raise BenchError(f"the collector did not start: {said!r}")
        yield Collector(json.loads(said.removeprefix("READY "))["port"])
    finally:
        stop(process)


class Server(ThreadingHTTPServer):
    """Counts by name, behind one lock."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self._no_message: type[Exception] = DecodeError
        self._messages: dict[str, Any] = {
            "v1/traces": ExportTraceServiceRequest,
            "v1/metrics": ExportMetricsServiceRequest,
            "v1/logs": ExportLogsServiceRequest,
        }
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)
        self._lock = threading.Lock()
        self.never = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    def take(self, name: str, signal: str, body: bytes) -> None:
        """Count a request. Raises ValueError for what is none of OTLP."""
        if signal not in self._messages:
            raise ValueError(f"{signal!r} is no signal")
        message = self._messages[signal]()
        try:
            message.ParseFromString(body)
        except self._no_message as error:
            raise ValueError("the body is none of its messages") from error
        with self._lock:
            counts = self._counts[name]
            counts.requests += 1
            if signal == "v1/traces":
                _add_spans(counts, message)
            elif signal == "v1/logs":
                _add_logs(counts, message)
            else:
                _add_metrics(counts, message)

    def told(self, name: str) -> bytes:
        with self._lock:
            return json.dumps(dataclasses.asdict(self._counts[name])).encode()

    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy leaves as it pleases."""


def _add_spans(counts: Counts, message: Any) -> None:
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            counts.spans += len(scope.spans)
            counts.traced += sum(not span.parent_span_id for span in scope.spans)


def _add_logs(counts: Counts, message: Any) -> None:
    for resource in message.resource_logs:
        for scope in resource.scope_logs:
            counts.logged += sum(record.event_name == "polytls.tunnel" for record in scope.log_records)


def _add_metrics(counts: Counts, message: Any) -> None:
    counts.metrics += 1
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == _ENDED:
                    counts.counted = sum(point.as_int for point in metric.sum.data_points)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment, else the second waits for an acknowledgement
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, _, signal = self.path.removeprefix("/").partition("/")
        if name.endswith(STUCK):
            self.server.never.wait()
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            self.server.take(name, signal, body)
        except ValueError:
            self._answer(400, b"")
            return
        self._answer(200, b"")  # an empty message: all was taken

    def do_GET(self) -> None:
        self._answer(200, self.server.told(self.path.removeprefix("/")))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        pass


def main() -> int:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("READY " + json.dumps({"port": server.server_address[1]}), flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
