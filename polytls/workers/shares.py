"""What workers have a share of: an address, by a listening socket for each, and numbers."""

from __future__ import annotations

import contextlib
import socket

from polytls.settings import Address, ListenSettings
from polytls.started import ListenError


def open_listeners(listen: ListenSettings, workers: int) -> tuple[Address, list[socket.socket]]:
    """As many sockets that listen on one address, and the address with its actual port. Raises
    `ListenError`."""
    host, port = listen.address.host, listen.address.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            # Without SO_REUSEPORT, for this to fail where anybody listens; and to have a port, if any will
            # do.
            first = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind((host, port))
            port = first.getsockname()[1]
            opened = [stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(workers)]
            for each in opened:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                each.bind((host, port))
            for each in opened:
                each.listen(listen.backlog)
        except OSError as error:
            raise ListenError(listen.address, error) from error
        stack.pop_all()
        first.close()
    return Address(host, port), opened


def share(total: int, number: int, workers: int) -> int:
    """What worker `number` of `workers` (from 1 on) has of a total that all of them share."""
    return total // workers + (number <= total % workers)
