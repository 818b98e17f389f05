"""What several ClientHellos of one client share, what varies, and what a second hello changes (pure).

Theory of operation
-------------------
`normal` writes a hello as text with only that masked which is fresh in every real hello: random, session id,
GREASE values, key material, the bytes of ECH, tickets, cookies and padding; their lengths stay. `describe`
compares several: `invariants` is what all agree on, `varies` the rest, with every value seen. `changes`
compares two hellos of one client, and says what the second has that the first had not.

Two GREASE extensions are told apart by place: GREASE1 is the earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.cursor import Cursor
from polytls.wire.iana import is_grease

_SESSION_TICKET, _PADDING, _PRE_SHARED_KEY, _COOKIE, _KEY_SHARE = 35, 21, 41, 44, 51
_TRUST_ANCHORS, _ECH = 0xCA34, 0xFE0D
_X25519, _X25519_MLKEM768, _X25519_KYBER768 = 29, 0x11EC, 0x6399
_X25519_BYTES = 32
_HANDSHAKE_HEADER_BYTES = 4

Json = dict[str, Any]


def numbers(values: Iterable[int]) -> str:
    return ",".join("GREASE" if is_grease(value) else f"{value:04x}" for value in values)


def _u16_list(body: bytes) -> str:
    return numbers(Cursor(Cursor(body).vec16()).u16s())


def _u16_list8(body: bytes) -> str:
    return numbers(Cursor(Cursor(body).vec8()).u16s())


def _protocols(body: bytes) -> str:
    names, found = Cursor(Cursor(body).vec16()), []
    while names.remaining:
        found.append(names.vec8().decode("latin-1"))
    return ",".join(found)


def _key_shares(body: bytes) -> str:
    entries, found = Cursor(Cursor(body).vec16()), []
    while entries.remaining:
        group, key = entries.u16(), entries.vec16()
        found.append(f"{numbers([group])}:{len(key)}")
    return ",".join(found)


def _ech(body: bytes) -> str:
    cursor = Cursor(body)
    if cursor.u8() != 0:
        return "inner"
    kdf, aead, _, enc, payload = cursor.u16(), cursor.u16(), cursor.u8(), cursor.vec16(), cursor.vec16()
    return f"outer kdf={kdf:04x} aead={aead:04x} enc={len(enc)} payload={len(payload)}"


def _psk(body: bytes) -> str:
    cursor = Cursor(body)
    identities, binders = Cursor(cursor.vec16()), Cursor(cursor.vec16())
    sizes, proofs = [], []
    while identities.remaining:
        sizes.append(str(len(identities.vec16())))
        identities.take(4)
    while binders.remaining:
        proofs.append(str(len(binders.vec8())))
    return f"identities={'+'.join(sizes)} binders={'+'.join(proofs)}"


def _names(body: bytes) -> str:
    """trust_anchors: identifiers in hexadecimal; their order is part of it."""
    names, found = Cursor(Cursor(body).vec16()), []
    while names.remaining:
        found.append(names.vec8().hex())
    return ",".join(found)


_TEXTS: dict[int, Callable[[bytes], str]] = {
    0: lambda _: "host_name",
    10: _u16_list,
    13: _u16_list,
    16: _protocols,
    _PADDING: lambda body: f"zeros={len(body)}" if not any(body) else body.hex(),
    27: _u16_list8,
    34: _u16_list,
    _SESSION_TICKET: lambda body: f"ticket={len(body)}" if body else "",
    _PRE_SHARED_KEY: _psk,
    43: _u16_list8,
    _COOKIE: lambda body: f"cookie={len(body) - 2}",
    50: _u16_list,
    _KEY_SHARE: _key_shares,
    _TRUST_ANCHORS: _names,
    _ECH: _ech,
}


def keys(hello: ClientHello) -> list[str]:
    """The extensions' names, in order: four hexadecimal digits, or GREASE1 and GREASE2."""
    found, greases = [], 0
    for number in hello.extension_types:
        greases += is_grease(number)
        found.append(f"GREASE{greases}" if is_grease(number) else f"{number:04x}")
    return found


def bodies(hello: ClientHello) -> dict[str, str]:
    """Each extension's normal text. Raises `CursorError` where one cannot be read."""
    return {
        key: _TEXTS.get(extension.type, bytes.hex)(extension.body)
        for key, extension in zip(keys(hello), hello.extensions, strict=True)
    }


def handshake_bytes(records: bytes) -> int:
    """The length of the handshake message, its header included, however many records carried it."""
    size, position = 0, 0
    while position < len(records):
        length = int.from_bytes(records[position + 3 : position + 5], "big")
        size, position = size + length, position + 5 + length
    return size


def describe(hellos: Sequence[bytes]) -> tuple[Json, Json]:
    """(invariants, varies) of hellos given as records."""
    parsed = [parse_client_hello(records) for records in hellos]
    invariants: Json = {}
    varies: Json = {}
    _sort_out(
        invariants,
        varies,
        {
            "record_version": [f"{hello.record_version or 0:04x}" for hello in parsed],
            "legacy_version": [f"{hello.legacy_version:04x}" for hello in parsed],
            "session_id_bytes": [len(hello.session_id) for hello in parsed],
            "ciphers": [numbers(hello.cipher_suites) for hello in parsed],
            "compression": [bytes(hello.compression_methods).hex() for hello in parsed],
            "handshake_bytes": [handshake_bytes(records) for records in hellos],
            **_relations(parsed),
        },
    )
    _order(invariants, varies, [keys(hello) for hello in parsed])
    texts = [bodies(hello) for hello in parsed]
    fixed: Json = {}
    loose: Json = {}
    shuffled: Json = {}
    for key in sorted({key for text in texts for key in text}):
        seen = sorted({text[key] for text in texts if key in text})
        unordered = {",".join(sorted(text.split(","))) for text in seen}
        if len(seen) == 1:
            fixed[key] = seen[0]
        elif len(unordered) == 1:
            shuffled[key] = unordered.pop()
        else:
            loose[key] = seen
    invariants["bodies"] = fixed
    varies["bodies"] = loose
    varies["shuffled"] = shuffled  # the same entries, in another order each time
    if ech := _ech_shape(parsed):
        varies["ech"] = ech
    invariants["padding"] = _padding(hellos, texts)
    return invariants, varies


def _sort_out(invariants: Json, varies: Json, seen: dict[str, list[Any]]) -> None:
    """One value seen is an invariant; more are a variation."""
    for name, values in seen.items():
        if len(set(values)) == 1:
            invariants[name] = values[0]
        else:
            varies[name] = sorted(set(values), key=str)


def _relations(parsed: Sequence[ClientHello]) -> dict[str, list[Any]]:
    """What holds between the parts of one hello: None where there is nothing to compare."""
    return {
        "grease_group_is_key_share": [_grease_agrees(hello) for hello in parsed],
        "hybrid_reuses_x25519": [_hybrid_reuses(hello) for hello in parsed],
    }


def _grease_agrees(hello: ClientHello) -> bool | None:
    groups = [group for group in hello.supported_groups if is_grease(group)]
    shares = [share.group for share in hello.key_shares if is_grease(share.group)]
    return groups == shares if groups and shares else None


def _hybrid_reuses(hello: ClientHello) -> bool | None:
    """X25519MLKEM768 has the X25519 key last (draft-ietf-tls-ecdhe-mlkem), the older draft had it first."""
    shares = {share.group: share.key_exchange for share in hello.key_shares}
    plain = shares.get(_X25519)
    if plain is None:
        return None
    if hybrid := shares.get(_X25519_MLKEM768):
        return hybrid[-_X25519_BYTES:] == plain
    if hybrid := shares.get(_X25519_KYBER768):
        return hybrid[:_X25519_BYTES] == plain
    return None


def _order(invariants: Json, varies: Json, orders: Sequence[list[str]]) -> None:
    # Padding comes and goes with the length; a client that pads is not one that permutes.
    bare = [[key for key in order if key != f"{_PADDING:04x}"] for order in orders]
    if all(order == bare[0] for order in bare):
        longest = max(orders, key=len)
        invariants["extensions"] = longest
        varies["extension_order"] = False
        return
    everywhere = set.intersection(*map(set, orders))
    invariants["extensions"] = sorted(everywhere)
    invariants["first"] = _agreed(order[0] for order in bare)
    invariants["last"] = _agreed(order[-1] for order in bare)
    varies["extension_order"] = any(sorted(order) == sorted(bare[0]) and order != bare[0] for order in bare)
    varies["optional_extensions"] = sorted({key for order in orders for key in order} - everywhere)


def _agreed(values: Iterable[str]) -> str | None:
    seen = set(values)
    return seen.pop() if len(seen) == 1 else None


def _ech_shape(parsed: Sequence[ClientHello]) -> Json | None:
    """Over all hellos: draft-ietf-tls-esni §5. Everything but the shape is fresh."""
    shapes = []
    for hello in parsed:
        body = hello.extension(_ECH)
        if body and body[0] == 0:
            cursor = Cursor(body[1:])
            shapes.append((cursor.u16(), cursor.u16(), cursor.u8(), len(cursor.vec16()), len(cursor.vec16())))
    if not shapes:
        return None
    return {
        "kdfs": sorted({kdf for kdf, *_ in shapes}),
        "aeads": sorted({aead for _, aead, *_ in shapes}),
        "config_ids": len({config for _, _, config, _, _ in shapes}),
        "enc_bytes": sorted({enc for *_, enc, _ in shapes}),
        "payload_bytes": sorted({payload for *_, payload in shapes}),
    }


def _padding(hellos: Sequence[bytes], texts: Sequence[dict[str, str]]) -> str:
    padded = [
        handshake_bytes(records)
        for records, text in zip(hellos, texts, strict=True)
        if f"{_PADDING:04x}" in text
    ]
    if not padded:
        return "not seen"
    return f"to {padded[0]} bytes" if len(set(padded)) == 1 else "to several lengths"


def changes(first_records: bytes, second_records: bytes) -> Json:
    """What the second hello has otherwise than the first.

    `changed` are extensions whose normal text differs; `fresh` are those that differ only in what is masked.
    """
    first, second = parse_client_hello(first_records), parse_client_hello(second_records)
    old_keys, new_keys = keys(first), keys(second)
    old, new = bodies(first), bodies(second)
    raw_old = dict(zip(old_keys, first.extensions, strict=True))
    raw_new = dict(zip(new_keys, second.extensions, strict=True))
    common = [key for key in old_keys if key in raw_new]
    ciphers = [numbers(hello.cipher_suites) for hello in (first, second)]
    fresh = [key for key in common if old[key] == new[key] and raw_old[key].body != raw_new[key].body]
    if ciphers[0] == ciphers[1] and first.cipher_suites != second.cipher_suites:
        fresh.append("ciphers")  # another GREASE value
    return {
        "same_random": first.random == second.random,
        "same_session_id": first.session_id == second.session_id,
        "same_ciphers": ciphers[0] == ciphers[1],
        "same_order": common == [key for key in new_keys if key in raw_old],
        "added": [f"{key} after {_before(new_keys, key)}: {new[key]}" for key in new_keys if key not in old],
        "removed": [key for key in old_keys if key not in new],
        "changed": {key: new[key] for key in common if old[key] != new[key]},
        "fresh": sorted(fresh),
        "same_grease_extensions": [raw_old[key].type == raw_new[key].type for key in common if key[0] == "G"],
        "handshake_bytes": [handshake_bytes(first_records), handshake_bytes(second_records)],
        "record_version": [f"{hello.record_version or 0:04x}" for hello in (first, second)],
    }


def _before(order: Sequence[str], key: str) -> str:
    place = order.index(key)
    return order[place - 1] if place else "nothing"
