"""An HTTPS server of tlslite-ng that compresses its certificate: serve_tlslite.py METHOD CERTIFICATE.pem.

It tells its port, and ends with its input.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
import threading
from pathlib import Path
from typing import Any

_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def main(method: str, certificate: str) -> None:
    # By name: the type checker's environment does not have it.
    api = importlib.import_module("tlslite.api")
    pem = Path(certificate).read_text("ascii")
    chain = api.X509CertChain()
    chain.parsePemList(pem)
    key = api.parsePEMKey(pem, private=True)
    settings = api.HandshakeSettings()
    settings.certificate_compression_send = [method]
    settings.minVersion = (3, 4)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print("PORT", listener.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(api, listener, chain, key, settings), daemon=True).start()
    sys.stdin.read()


def accept(api: Any, listener: socket.socket, chain: Any, key: Any, settings: Any) -> None:
    while True:
        client, _ = listener.accept()
        client.settimeout(10)
        connection = api.TLSConnection(client)
        with contextlib.suppress(Exception):  # whatever it fails by, the next client may fare better
            connection.handshakeServer(certChain=chain, privateKey=key, settings=settings, alpn=[b"http/1.1"])
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            connection.sendall(_RESPONSE)
            connection.close()
        client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
