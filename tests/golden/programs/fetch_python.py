"""`http.client` with its own context, resuming where it may: fetch_python.py HOST PORT TIMES CA."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import sys


class _Connection(http.client.HTTPSConnection):
    """Goes to 127.0.0.1, whatever the name, and takes a session."""

    session: ssl.SSLSession | None = None
    context: ssl.SSLContext

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.sock = self.context.wrap_socket(plain, server_hostname=self.host, session=self.session)


def main(host: str, port: str, times: str, authority: str) -> None:
    # What HTTPSConnection makes when it is given no context (http.client, `_create_https_context`).
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["http/1.1"])
    if context.post_handshake_auth is not None:
        context.post_handshake_auth = True
    session: ssl.SSLSession | None = None
    for _ in range(int(times)):
        connection = _Connection(host, int(port), context=context)
        connection.context, connection.session = context, session
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            sock = connection.sock
            response = connection.getresponse()
            assert isinstance(sock, ssl.SSLSocket)
            found = sock.session  # tickets come before the answer, and the socket goes with its last byte
            session = found if found is not None and found.has_ticket else None
            response.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
