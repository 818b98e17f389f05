"""An OCSP responder on 127.0.0.1 (RFC 6960): "good" for whatever its authority issued."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.peers.certificates import Authority


class Responder:
    """Answers until left, once it has an authority. `url` is where; `asked` counts."""

    def __init__(self) -> None:
        self.authority: Authority | None = None
        self.asked = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        responder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # RFC 6960 §A.1
                self._answer(base64.b64decode(unquote(self.path[1:])))

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, request: bytes) -> None:
                assert responder.authority is not None
                responder.asked += 1
                answer = responder.authority.status(ocsp.load_der_ocsp_request(request).serial_number)
                body = answer.public_bytes(serialization.Encoding.DER)
                self.send_response(200)
                self.send_header("Content-Type", "application/ocsp-response")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
