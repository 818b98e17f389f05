"""An OTLP/HTTP receiver on a free port, which can be told to behave badly: the collector where there is none.

It decodes what it gets with the published protobuf package, and keeps it as `Exported`, the same value that
the real collector's file is read into (`tests.otlp.exported`). Only what was answered 200 is kept.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.otlp.exported import Exported
from tests.peers.serve import HANG_SECONDS

_REQUESTS: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}

Behaviour = Callable[[BaseHTTPRequestHandler], bool]
"""What a receiver does with a request instead of taking it: True where it answered (or will not)."""


class Receiver:
    """Listens until `close`. `behave` may be changed at any time; None: take everything."""

    kind = "receiver on the protobuf package"

    def __init__(self, behave: Behaviour | None = None, *, port: int = 0) -> None:
        self.behave = behave
        self.raw: list[bytes] = []  # every body, taken or not
        self.headers: list[dict[str, str]] = []
        self._exported = Exported()
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._changed:
                    receiver.raw.append(body)
                    receiver.headers.append(dict(self.headers.items()))
                    receiver._changed.notify_all()
                with contextlib.suppress(OSError):
                    if receiver.behave is None or not receiver.behave(self):
                        receiver._take(self, body)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients leave as they please

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(HANG_SECONDS)

    def exported(self) -> Exported:
        """What was taken so far."""
        with self._changed:
            return self._exported.copy()

    def wait(self, enough: Callable[[Exported], object]) -> Exported:
        """Wait until what was taken is `enough`."""
        deadline = time.monotonic() + HANG_SECONDS
        with self._changed:
            while not enough(self._exported):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"not enough was exported: {self._exported}")
            return self._exported.copy()

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests came, whatever became of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.raw) >= count, HANG_SECONDS)

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = _REQUESTS[handler.path]()
        message.ParseFromString(body)
        with self._changed:
            self._exported.add(MessageToDict(message))
            self._changed.notify_all()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def refuse(status: int) -> Behaviour:
    """Answer with a status."""

    def behave(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return behave


def garbage(handler: BaseHTTPRequestHandler) -> bool:
    """Answer with what is no HTTP, and end the connection."""
    handler.wfile.write(bytes(range(256)) * 64)
    handler.close_connection = True
    return True


class Stuck:
    """Answer nothing until `release`."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> bool:
        self._released.wait(HANG_SECONDS)
        return False

    def release(self) -> None:
        self._released.set()


def free_port() -> int:
    """A port that nobody listens on, for now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
