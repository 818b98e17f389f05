"""Several processes that serve one address, and the one that looks after them.

`supervise` is `polytls.program.run` for more than one worker. It opens a listening socket for each worker,
all bound to the same address by SO_REUSEPORT, so that the kernel spreads connections over them by a hash of
the client's address and port. Each worker is a new interpreter with its own engine, event loop, caches and
limit of open files; it inherits its socket, and runs `polytls.program.run` on it.

* The supervisor keeps the sockets. A connection that the kernel has made, and that no worker had accepted
  when its worker died, waits in the backlog for the next one; only what the dead one had accepted is lost.
* Whoever else listens on the address is told of before anything is started, by an ordinary bind.
  (SO_REUSEPORT alone would share it silently with every process of the same user.)
* Workers are told to stop over a socket pair (`order`), never by signals, which a terminal or a service
  manager may send to all processes of a group at once: they would count twice. A worker whose supervisor is
  gone stops.
* What is shared by all, tunnel numbers and whose turn it is to write to stdout, is in `board`: memory that
  outlives each of them.

The supervisor itself loads no engine, no certificates and no event loop, and starts workers by exec: it never
forks into Python. One worker is no case of this package: then there is only `polytls.program.run`.
"""

from __future__ import annotations

from polytls.workers.supervisor import supervise

__all__ = ["supervise"]
