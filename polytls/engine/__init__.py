"""The native engine, and the only place where `ffi` and `lib` appear.

`Engine` submits operations and hands out their completions as awaits; a `Stream` is one side of a tunnel;
contexts, credentials and trusted roots are what handshakes share. What operations tell is in `facts`, what
can go wrong in `failures`. The manual of the native side is native/include/polytls/native.h.
"""

from __future__ import annotations

from polytls.engine.chain import Chain
from polytls.engine.contexts import ClientContext, Credential, ServerContext, Trust
from polytls.engine.core import Engine, EngineStats, Listener
from polytls.engine.facts import (
    Accepted,
    Connected,
    ExpectedHello,
    HelloFacts,
    RelayFacts,
    SocketAddress,
    TlsFacts,
    UnexpectedHelloError,
)
from polytls.engine.roots import load_trust
from polytls.engine.stream import MAX_HELLO_BYTES, Stream

__all__ = [
    "MAX_HELLO_BYTES",
    "Accepted",
    "Chain",
    "ClientContext",
    "Connected",
    "Credential",
    "Engine",
    "EngineStats",
    "ExpectedHello",
    "HelloFacts",
    "Listener",
    "RelayFacts",
    "ServerContext",
    "SocketAddress",
    "Stream",
    "TlsFacts",
    "Trust",
    "UnexpectedHelloError",
    "load_trust",
]
