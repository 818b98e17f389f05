"""What the capture server shows to clients: a leaf for whatever name they ask for.

Theory of operation
-------------------
`Contexts` mints leaves by the root CA of `polytls.pki`: the one in a directory, so that a client which trusts
the proxy trusts the capture as well, or one that is thrown away with its directory. Each name has an
`ssl.SSLContext` with an ECDSA and an RSA leaf, since what a client can verify is part of what is captured;
contexts are kept, at most `MAX_NAMES` of them.

`ssl` reads keys from files alone. They are written to a temporary file that only this user may read, which is
gone a moment later.

No session tickets are given out, unless asked for: a hello that resumes a session is not a client's first
hello, and the first one is what a capture is for.
"""

from __future__ import annotations

import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from polytls.errors import ProxyError
from polytls.pki.leaf import LeafKeys, LeafKind, mint_leaf
from polytls.pki.root import RootCA, load_or_create

MAX_NAMES = 64
"""Contexts kept: some 100 KB each, and a lab asks for few names."""

LEAF_DAYS = 7
"""Of validity: a capture runs for minutes, and a leaf is made at each start."""

_PROTOCOLS = ("h2", "http/1.1")


class Contexts:
    """TLS contexts by the name that a client asks for. Not thread-safe: for one event loop."""

    def __init__(
        self,
        root: RootCA,
        *,
        fallback: str = "127.0.0.1",
        protocols: Sequence[str] = _PROTOCOLS,
        group: str | None = None,
        sessions: bool = False,
    ) -> None:
        """`fallback` (a name or an address) is certified where a client names nothing that can be.

        `group` (OpenSSL's name) is the only one accepted, so that a client without a share of it is asked for
        one; `sessions` are given out.
        """
        self.root = root
        self._group = group
        self._sessions = sessions
        self._fallback = fallback
        self._protocols = tuple(protocols)
        self._keys = LeafKeys.generate()
        self._key_pems: dict[LeafKind, bytes] = {}
        self._made: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def context(self, server_name: bytes | None) -> ssl.SSLContext:
        """The context for a client that sent this server_name."""
        name = (server_name or b"").decode("ascii", errors="replace").lower() or self._fallback
        try:
            return self._context(name)
        except ProxyError:  # no certificate can name it
            return self._context(self._fallback)

    def _context(self, name: str) -> ssl.SSLContext:
        context = self._made.get(name)
        if context is None:
            context = self._make(name)
            self._made[name] = context
            if len(self._made) > MAX_NAMES:
                self._made.popitem(last=False)
        self._made.move_to_end(name)
        return context

    def _make(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(list(self._protocols))
        if self._group is not None:
            context.set_ecdh_curve(self._group)
        if not self._sessions:
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        now = datetime.now(timezone.utc)
        for kind in LeafKind:
            leaf = mint_leaf(self.root, self._keys, name, kind, now=now, days=LEAF_DAYS)
            _load(context, leaf.chain_der, self._key_pem(kind))
        return context

    def _key_pem(self, kind: LeafKind) -> bytes:
        """Kept: reading an RSA key checks it, which takes longer than everything else here."""
        pem = self._key_pems.get(kind)
        if pem is None:
            key = serialization.load_der_private_key(self._keys.private_der(kind), None)
            pem = self._key_pems[kind] = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        return pem


def root_in(directory: Path, key_name: str, certificate_name: str, passphrase: bytes | None) -> RootCA:
    """The root CA in a directory; it is made where there is none. Raises `CAError`."""
    return load_or_create(directory / key_name, directory / certificate_name, passphrase)


def throw_away_root() -> RootCA:
    """A root CA that is nowhere but in memory: no client trusts it."""
    with tempfile.TemporaryDirectory(prefix="polytls-") as name:
        directory = Path(name)
        return load_or_create(directory / "private.key", directory / "certificate.pem", None)


def _load(context: ssl.SSLContext, chain_der: Sequence[bytes], key_pem: bytes) -> None:
    certificates = (x509.load_der_x509_certificate(der) for der in chain_der)
    with tempfile.NamedTemporaryFile(prefix="polytls-", suffix=".pem") as file:  # mode 0600
        file.write(key_pem + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
        file.flush()
        context.load_cert_chain(file.name)
