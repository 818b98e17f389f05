"""What the native parser takes for a template: only what keeps a handshake correct; and it never crashes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from polytls.engine import ClientContext
from polytls.errors import EngineError
from polytls.profiles import Catalog
from tests.peers.serve import HANG_SECONDS, clean_environment
from tests.profiles.expand import BUILTIN, GREASE, RAW, Entry, Template, parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = 1500
OFFSET = re.compile(r"profile chrome-133: the template cannot be used; what is wrong begins at byte (\d+)$")

GROUPS, SCHEMES, PADDING, PSK, VERSIONS, SHARES = 10, 13, 21, 41, 43, 51
TRUST_ANCHORS, ECH = 0xCA34, 0xFE0D

Change = Callable[[Template], Template]


@cache
def chrome() -> bytes:
    return Catalog.load({}, "test").require("chrome-133", source="test", key="").template or b""


def use(blob: bytes) -> None:
    """Make a context of it. Raises EngineError."""
    spec = Catalog.load({}, "test").require("chrome-133", source="test", key="")
    ClientContext(replace(spec, template=blob), None, verify_chain=False, verify_host=False)


def offset_of(blob: bytes) -> int:
    """Where it is refused."""
    with pytest.raises(EngineError) as caught:
        use(blob)
    found = OFFSET.search(str(caught.value))
    assert found is not None, str(caught.value)
    offset = int(found[1])
    assert offset <= len(blob)
    return offset


def compiled(template: Template) -> bytes:
    """The blob of a parsed template."""
    return b"".join(
        (
            b"\1",
            _u16(template.record_version),
            bytes((template.flags,)),
            _vec16(_u16s(template.cipher_suites)),
            _vec8(template.compression_methods),
            _vec16(_u16s(template.key_shares)),
            _vec16(_u16s(template.ech_aeads)),
            _vec16(_u16s(template.ech_payloads)),
            bytes((template.ech_psk_step,)),
            _vec16(b"".join(map(_entry, template.entries))),
        )
    )


def _entry(entry: Entry) -> bytes:
    patches = b"".join(_u16(offset) + bytes((slot,)) for offset, slot in entry.patches)
    head = _u16(entry.type) + bytes((entry.kind, entry.slot, entry.flags))
    return head + _vec16(entry.body) + _vec8(patches)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u16s(values: tuple[int, ...]) -> bytes:
    return b"".join(map(_u16, values))


def _vec8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _vec16(data: bytes) -> bytes:
    return _u16(len(data)) + data


def entry(number: int, **changes: object) -> Change:
    """The entry of this type, changed."""

    def change(template: Template) -> Template:
        entries = [
            replace(item, **changes) if item.type == number else item  # type: ignore[arg-type]
            for item in template.entries
        ]
        assert tuple(entries) != template.entries
        return replace(template, entries=tuple(entries))

    return change


def without(number: int) -> Change:
    return lambda template: replace(
        template, entries=tuple(item for item in template.entries if item.type != number)
    )


def with_entry(*added: Entry) -> Change:
    return lambda template: replace(template, entries=(*template.entries, *added))


def fields(**changes: object) -> Change:
    return lambda template: replace(template, **changes)  # type: ignore[arg-type]


def raw(number: int, body: bytes = b"", *patches: tuple[int, int]) -> Entry:
    return Entry(number, RAW, 0, 0, body, patches)


def test_a_template_is_taken() -> None:
    assert compiled(parse(chrome())) == chrome()
    use(chrome())


@pytest.mark.parametrize("extra", [b"\0", b"\xff" * 9])
def test_nothing_may_follow(extra: bytes) -> None:
    assert offset_of(chrome() + extra) == len(chrome())


def test_no_prefix_is_one() -> None:
    for size in range(1, len(chrome())):
        assert offset_of(chrome()[:size]) <= size


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_format(version: int) -> None:
    assert offset_of(bytes((version,)) + chrome()[1:]) == 0


@pytest.mark.parametrize(
    "change",
    [
        fields(cipher_suites=()),
        fields(compression_methods=b""),
        fields(key_shares=(0x0019,)),
        fields(key_shares=(0x001E,)),
        fields(ech_aeads=()),
        fields(ech_payloads=()),
        fields(ech_payloads=(16,)),
        with_entry(raw(PADDING, bytes(8))),
        with_entry(raw(PSK)),
        with_entry(raw(0x1234), raw(0x1234)),
        with_entry(raw(0x1234, b"\0\0\0", (2, 0))),
        with_entry(raw(0x1234, b"\0\0\0", (0, 8))),
        with_entry(Entry(0x1234, BUILTIN, 0, 0, b"", ())),
        with_entry(Entry(0x1234, 3, 0, 0, b"", ())),
        with_entry(Entry(0x1234, RAW, 0, 4, b"", ())),
        entry(SHARES, kind=RAW),
        entry(0, kind=RAW),
        without(GROUPS),
        without(SCHEMES),
        without(SHARES),
        entry(VERSIONS, body=b"\2\3\3", patches=()),  # key_share stays
        entry(GROUPS, body=b"\0\3\0\x1d\0", patches=()),
        entry(SCHEMES, body=b"\0\4\4\3"),
        entry(VERSIONS, body=b"\3\3\4", patches=()),
    ],
)
def test_what_would_break_a_handshake_is_refused(change: Change) -> None:
    assert offset_of(compiled(change(parse(chrome())))) > 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(fields(record_version=0x0001), id="a record that is not TLS"),
        pytest.param(fields(compression_methods=b"\1"), id="no null compression"),
        pytest.param(fields(key_shares=(0x001D, 0x001D)), id="a share twice"),
        pytest.param(fields(ech_aeads=(9,)), id="an AEAD that is none"),
        pytest.param(entry(VERSIONS, patches=((0, 4),)), id="GREASE over a list's length"),
        pytest.param(with_entry(Entry(0, GREASE, 2, 1, b"", ())), id="one GREASE extension twice"),
        pytest.param(with_entry(Entry(0, GREASE, 7, 1, b"", ())), id="GREASE of no extension's slot"),
        pytest.param(with_entry(raw(0x1A1A)), id="a plain extension that may be the GREASE one"),
        pytest.param(with_entry(raw(TRUST_ANCHORS, b"\0\1")), id="trust anchors that are no list"),
    ],
)
def test_what_would_be_malformed_is_refused(change: Change) -> None:
    assert offset_of(compiled(change(parse(chrome())))) > 0


def test_mutated_templates_never_crash_the_process() -> None:
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.engine.mutated_templates",
        "0",
        str(EXAMPLES),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
