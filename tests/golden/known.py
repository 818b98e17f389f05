"""What is expected of hellos that the program sends, next to the captures in clients/.

Theory of operation
-------------------
`expected` is the comparable value of a client's first hellos, and `as_said` the differences that its built-in
profile announces: those of imitations that the real client is known to do otherwise. `told` is what a second
hello has otherwise than the first, without what depends on the server or on what was drawn: the length of
tickets, of ECH payloads, of padding. Two pairs of hellos of one client tell the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.normal import NormalHello, difference, normalise
from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.iana import ExtensionType, is_grease
from tests.golden.profiles import CLIENTS, samples
from tests.golden.profiles import capture as load_capture
from tests.golden.shape import changes, handshake_bytes

NAMES = tuple(sorted(path.stem for path in CLIENTS.glob("*.json")))
"""Every captured client; there is a built-in profile of each."""

_ANCHORS_STAY = "trust_anchors: in the same order each time, expected a new one"
_FIREFOX_IS_REAL = (
    "encrypted_client_hello: AEAD 3, expected 1",
    "encrypted_client_hello: bytes of payload 239, expected 144 or 176 or 208 or 240",
    "unexpected: the X25519 key share is the key in the hybrid one",
)
_PADDING, _ECH, _PSK = "0015", "fe0d", "0029"
_ECH_PAYLOAD_LENGTH = slice(40, 42)  # after type, KDF, AEAD, config id and a 32-byte key with its length

Json = dict[str, Any]


@cache
def capture(name: str) -> Json:
    return load_capture(name)


@cache
def hello_of(name: str) -> ClientHello:
    """The client's first captured hello."""
    return parse_client_hello(samples(name)[0])


@cache
def expected(name: str) -> NormalHello:
    return normalise([parse_client_hello(sample) for sample in samples(name)])


def as_said(name: str) -> list[str]:
    """How the built-in profile differs from its capture, on purpose."""
    if capture(name)["imitation"] and name.startswith("firefox"):
        return list(_FIREFOX_IS_REAL)
    return [_ANCHORS_STAY] if name.startswith("chrome-152") else []


def problems(name: str, hellos: Sequence[ClientHello]) -> list[str]:
    """How these first hellos are not the client's: by all of their bytes, and by fingerprints."""
    found = difference(expected(name), normalise(hellos))
    wanted = as_said(name)
    # Trust anchors that stay are only seen to stay in more than one hello.
    wanted = [text for text in wanted if len(hellos) > 1 or text != _ANCHORS_STAY]
    wrong = [text for text in found if text not in wanted] + [
        f"not: {text}" for text in wanted if text not in found
    ]
    return wrong + fingerprint_problems(name, hellos)


def fingerprint_problems(name: str, hellos: Sequence[ClientHello]) -> list[str]:
    stored = capture(name)
    wrong = []
    for hello in hellos:
        seen = ja4(hello)
        # A client that pads now and then (Chrome 120) has two.
        if seen.ja4 not in stored["varies"].get("ja4", [stored["ja4"]]):
            wrong.append(f"JA4 {seen.ja4}, expected {stored['ja4']}")
        elif seen.ja4 == stored["ja4"]:
            pairs = (("JA4_r", seen.ja4_r, stored["ja4_r"]), ("JA3n", ja3(hello).ja3n_hash, stored["ja3n"]))
            wrong += [f"{what} {ours}, expected {theirs}" for what, ours, theirs in pairs if ours != theirs]
    return wrong


def told(first: bytes, second: bytes, *, permuted: bool) -> Json:
    """What the second hello, as records, has otherwise than the first.

    `permuted`: places say nothing, so that they are left out. `growth` is in bytes, without padding, PSK and
    ECH.
    """
    found = changes(first, second)
    told: Json = {
        name: found[name] for name in ("same_random", "same_session_id", "same_ciphers", "same_order")
    }
    added = [text for text in found["added"] if not text.startswith(_PADDING)]
    if permuted:
        added = [re.sub(" after [^:]+", "", text) for text in added]
    told["added"] = sorted(re.sub(r"(identities|binders)=\d+", r"\1", text) for text in added)
    told["removed"] = [key for key in found["removed"] if key != _PADDING]
    told["changed"] = {key: text for key, text in found["changed"].items() if key not in (_PADDING, _ECH)}
    told["same_ech"] = _ech(first) == _ech(second)
    if found["same_random"]:  # else GREASE values are drawn anew, and may happen to be the same
        told["fresh"] = found["fresh"]
        told["same_grease_extensions"] = all(found["same_grease_extensions"])
    told["padded"] = parse_client_hello(second).extension(ExtensionType.PADDING) is not None
    told["growth"] = _bare_bytes(second) - _bare_bytes(first)
    told["record_version"] = found["record_version"]
    return told


def stored_told(name: str, kind: str) -> Json:
    """`told` of the stored pair of this kind ("retry", "retry_cookie", "resumed")."""
    (pair,) = capture(name)[kind]
    first, second = (bytes.fromhex(pair[side]) for side in ("first", "second"))
    return told(first, second, permuted=permutes(name))


def permutes(name: str) -> bool:
    return bool(capture(name)["varies"]["extension_order"])


def ech_payload_bytes(records: bytes) -> int | None:
    body = _ech(records)
    return None if body is None else int.from_bytes(body[_ECH_PAYLOAD_LENGTH], "big")


def psk_bytes(records: bytes) -> int:
    """Of the whole pre_shared_key extension, its header included; 0: there is none."""
    body = parse_client_hello(records).extension(ExtensionType.PRE_SHARED_KEY)
    return 0 if body is None else 4 + len(body)


def offers(name: str, group: int) -> bool:
    """Whether the client lists this group, and sends no share of it."""
    hello = hello_of(name)
    return group in hello.supported_groups and group not in {share.group for share in hello.key_shares}


def greases(hello: ClientHello) -> tuple[int, ...]:
    """All GREASE values, by place."""
    lists = (
        hello.cipher_suites,
        hello.supported_groups,
        hello.extension_types,
        hello.supported_versions,
        hello.signature_algorithms,
    )
    return tuple(value for values in lists for value in values if is_grease(value))


def _ech(records: bytes) -> bytes | None:
    return parse_client_hello(records).extension(ExtensionType.ENCRYPTED_CLIENT_HELLO)


def _bare_bytes(records: bytes) -> int:
    hello = parse_client_hello(records)
    left_out = (ExtensionType.PADDING, ExtensionType.PRE_SHARED_KEY, ExtensionType.ENCRYPTED_CLIENT_HELLO)
    bodies = [hello.extension(number) for number in left_out]
    return handshake_bytes(records) - sum(4 + len(body) for body in bodies if body is not None)
