"""Which of many captured hellos are one client's (pure).

Theory of operation
-------------------
Two hellos are taken to be of one client where all that a client decides is equal: versions, cipher suites,
compression, the set of extensions, and the contents of those that fingerprints look into. What is drawn for
each hello, the order of extensions and what comes and goes with a connection (padding, a session to resume,
early data) do not count. Two programs with one TLS library and one configuration are one client here: nothing
in their hellos tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polytls.fingerprint.ja4 import ja4
from polytls.wire.iana import ExtensionType, is_grease

if TYPE_CHECKING:
    from polytls.capture.records import CapturedHello
    from polytls.wire.client_hello import ClientHello

_GREASE = 0x0A0A
_COMES_AND_GOES = frozenset(
    {
        ExtensionType.PADDING.value,
        ExtensionType.PRE_SHARED_KEY.value,
        ExtensionType.EARLY_DATA.value,
    }
)


@dataclass(frozen=True, slots=True)
class Client:
    """First hellos of one client, at least one. `ja4` is the first one's."""

    captured: tuple[CapturedHello, ...]
    ja4: str

    @property
    def hellos(self) -> tuple[ClientHello, ...]:
        return tuple(one.hello for one in self.captured)

    @property
    def http2(self) -> tuple[object, ...]:
        """What is known of how it begins HTTP/2, as JSON says it: one for each hello it came with."""
        return tuple(one.http2 for one in self.captured if one.http2 is not None)

    def __str__(self) -> str:
        count = len(self.captured)
        name = self.captured[0].hello.sni
        asked = f" for {ascii(name.decode('latin-1'))[1:-1]}" if name else ""
        return f"{self.ja4} ({count} hello{'s' if count > 1 else ''}{asked})"


def clients_of(captured: Sequence[CapturedHello]) -> tuple[Client, ...]:
    """The clients, in the order in which they were first seen. Answers to a HelloRetryRequest are left out.

    Raises `HelloError` where an extension that is looked into is malformed.
    """
    groups: dict[object, list[CapturedHello]] = {}
    for one in captured:
        if not one.second and one.hello.extension(ExtensionType.COOKIE) is None:
            groups.setdefault(_key(one.hello), []).append(one)
    return tuple(Client(tuple(group), ja4(group[0].hello).ja4) for group in groups.values())


def _key(hello: ClientHello) -> object:
    return (
        hello.record_version,
        hello.legacy_version,
        _greased(hello.cipher_suites),
        hello.compression_methods,
        frozenset(_greased(number for number in hello.extension_types if number not in _COMES_AND_GOES)),
        _greased(hello.supported_groups),
        _greased(share.group for share in hello.key_shares),
        _greased(hello.signature_algorithms),
        _greased(hello.supported_versions),
        hello.alpn,
    )


def _greased(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(_GREASE if is_grease(value) else value for value in values)
