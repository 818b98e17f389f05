"""A detector of blocking calls: what a thread, the proxy's event loop, did that may wait for a disk, a
resolver or a reader.

Two witnesses, because neither sees everything. *Audit events* (PEP 578) tell of what is opened, resolved,
started or imported, also by code in C; they cannot be taken back, so the hook is installed once and asks who
is watched. The *profiler* of the thread sees every C function that Python code calls, `os.write` and
`time.sleep` among them, which have no audit event.

What is allowed is what an event loop is made of: its selector, and its own wake-up socket. No time is
measured: what may block is forbidden also where it did not.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from tests.proxy.harness import Proxy

_AUDITED = ("open", "import", "subprocess.Popen", "os.", "shutil.", "tempfile.", "glob.", "socket.get")
_FUNCTIONS = {
    "time": {"sleep"},
    "select": {"select", "poll"},
    "_io": {"open", "open_code"},
    "io": {"open", "open_code"},
    "builtins": {"open", "print", "input"},
    "_socket": {
        "getaddrinfo",
        "getnameinfo",
        "gethostbyname",
        "gethostbyaddr",
        "gethostbyname_ex",
        "getfqdn",
    },
    "_posixsubprocess": {"fork_exec"},
}
_HARMLESS_POSIX = {"cpu_count", "fspath", "getpid", "getppid", "strerror", "urandom"}
"""Everything else of `posix` is a call into the kernel about files, descriptors or processes."""
_FILE_METHODS = {"read", "readline", "readinto", "write", "writelines", "flush", "fsync", "close", "truncate"}
_SOCKET_METHODS = {"connect", "sendall", "accept", "recvfrom", "sendto", "makefile"}


class _Watched:
    """Threads that are watched, and what they did. One for the process: an audit hook cannot be removed."""

    def __init__(self) -> None:
        self.threads: dict[int, list[str]] = {}
        self.installed = False

    def install(self) -> None:
        if not self.installed:
            self.installed = True
            sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.threads:
            return
        found = self.threads.get(threading.get_ident())
        if found is not None and event.startswith(_AUDITED):
            found.append(f"{event} {args[:1]}")


_WATCHED = _Watched()


class Blocking:
    """While it is open, the loop of `proxy` is watched; `found` is what it did that may block."""

    def __init__(self, proxy: Proxy) -> None:
        self.found: list[str] = []
        self._proxy = proxy
        self._thread = 0

    def __enter__(self) -> Blocking:
        _WATCHED.install()
        self._proxy.call(self._begin)
        return self

    def __exit__(self, *_error: object) -> None:
        self._proxy.call(self._end)

    def _begin(self) -> None:
        self._thread = threading.get_ident()
        _WATCHED.threads[self._thread] = self.found
        sys.setprofile(self._profile)

    def _end(self) -> None:
        sys.setprofile(None)
        del _WATCHED.threads[self._thread]

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and _may_block(argument):
            self.found.append(f"{argument!r} by {frame.f_code.co_filename}:{frame.f_lineno}")


def _may_block(function: Any) -> bool:
    name, owner = function.__name__, getattr(function, "__self__", None)
    module = getattr(function, "__module__", None)
    if module == "posix":
        return name not in _HARMLESS_POSIX
    if module in _FUNCTIONS:
        return name in _FUNCTIONS[module]
    if isinstance(owner, io.IOBase) and not isinstance(owner, (io.BytesIO, io.StringIO)):
        return name in _FILE_METHODS
    if isinstance(owner, socket.socket):
        return name in _SOCKET_METHODS
    return False
