"""Each kind of value: what it takes, what it refuses and in which words, and text from a variable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.config import kinds
from polytls.config.schema import BY_PATH, KEYS, MAX_BACKLOG, MAX_LEAF_DAYS, MAX_THREADS, MAX_TUNNELS
from polytls.profiles.wording import WrongValueError
from polytls.settings import Address, SniPolicy

if TYPE_CHECKING:
    from polytls.config.kinds import Kind


def refusal(kind: Kind, value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        kind.parse(value)
    return str(caught.value)


def kind_of(path: str) -> Kind:
    return BY_PATH[path].kind


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("proxy.listen.address", "127.0.0.1:0", Address("127.0.0.1", 0)),
        ("proxy.listen.address", "0.0.0.0:65535", Address("0.0.0.0", 65535)),
        ("proxy.listen.address", "[0:0::1]:8080", Address("::1", 8080)),
        ("proxy.upstream.default_upstream", "Example.com:443", "example.com:443"),
        ("proxy.upstream.default_upstream", "[2001:DB8::1]:443", "[2001:db8::1]:443"),
        ("proxy.upstream.default_upstream", "bücher.example:1", "xn--bcher-kva.example:1"),
        ("proxy.upstream.default_profile", "Safari", "safari"),
        ("proxy.upstream.ca_file", "./a/b.pem", Path("a/b.pem")),
        ("proxy.upstream.dns_cache_ttl", 0, 0.0),
        ("proxy.timeouts.head", 0.1, 0.1),
        ("proxy.timeouts.head", 3600, 3600.0),
        ("proxy.mitm.sni", "require", SniPolicy.REQUIRE),
        ("proxy.mitm.enabled", False, False),
        ("proxy.certificate.ca_key_passphrase_env", "CA_PASSPHRASE", "CA_PASSPHRASE"),
        ("proxy.upstream.resolve", {"A.Test": "127.0.0.1"}, (("a.test", "127.0.0.1"),)),
        ("proxy.upstream.resolve", {"*.a.test": "10.0.0.1:443"}, (("*.a.test", "10.0.0.1:443"),)),
        ("proxy.upstream.resolve", {"a": "[::1]:443"}, (("a", "[::1]:443"),)),
        ("proxy.upstream.resolve", {"a": "[::1]"}, (("a", "::1"),)),
        ("proxy.upstream.resolve", {"a": "::1"}, (("a", "::1"),)),
        ("proxy.upstream.resolve", ["a:::1", "b:[::1]:2", "a:1.1.1.1"], (("a", "1.1.1.1"), ("b", "[::1]:2"))),
    ],
)
def test_accepted(path: str, value: object, expected: object) -> None:
    parsed = kind_of(path).parse(value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "proxy.mode",
            "transparent",
            "transparent mode is not supported, clients must use CONNECT; allowed: ",
        ),
        ("proxy.mode", 1, "got 1: transparent mode"),
        (
            "proxy.listen.address",
            "localhost:8080",
            'got "localhost:8080"; allowed: "IPV4:PORT" or "[IPV6]:PORT"',
        ),
        ("proxy.listen.address", ":8080", 'got ":8080": the host is empty; allowed: '),
        ("proxy.listen.address", "8080", 'got "8080"; allowed: '),
        ("proxy.listen.address", "127.0.0.1", 'got "127.0.0.1"; allowed: '),
        ("proxy.listen.address", "127.0.0.1:65536", 'got "127.0.0.1:65536"; allowed: '),
        ("proxy.listen.address", "127.0.0.1:-1", "allowed: "),
        ("proxy.listen.address", "127.0.0.1:\u0661", "allowed: "),
        ("proxy.listen.address", "127.0.0.1:8080 ", "allowed: "),
        ("proxy.listen.address", "::1:8080", 'got "::1:8080"; allowed: '),
        ("proxy.listen.address", "[fe80::1%eth0]:8080", "zone identifier"),
        ("proxy.listen.address", 8080, "got 8080; allowed: "),
        ("proxy.upstream.default_upstream", "example.com", 'got "example.com"; allowed: "HOST:PORT"'),
        ("proxy.upstream.default_upstream", "example.com:0", "allowed: "),
        ("proxy.upstream.default_upstream", "https://example.com:443", "allowed: "),
        ("proxy.upstream.default_profile", "a b", 'got "a b"; allowed: the name or alias of a profile'),
        ("proxy.upstream.ca_file", "", 'got ""; allowed: a path'),
        ("proxy.upstream.ca_file", "a\0b", "allowed: a path"),
        ("proxy.upstream.verify_hostname", "false", 'got "false"; allowed: true or false'),
        ("proxy.timeouts.head", 0.09, "got 0.09; allowed: seconds from 0.1 to 3600"),
        ("proxy.timeouts.head", 3600.1, "got 3600.1; allowed: seconds"),
        ("proxy.timeouts.head", float("nan"), "got nan; allowed: seconds"),
        ("proxy.timeouts.idle", float("inf"), "got inf; allowed: seconds"),
        ("proxy.timeouts.idle", True, "got true; allowed: seconds"),
        ("proxy.timeouts.idle", 10**400, "got an integer of more than 64 bits; allowed: seconds"),
        ("proxy.timeouts.idle", "10s", 'got "10s"; allowed: seconds'),
        ("proxy.listen.backlog", 1.0, "got 1.0; allowed: a whole number of connections from 1 to 65535"),
        ("proxy.listen.backlog", True, "got true; allowed: a whole number"),
        ("proxy.mitm.sni", "never", 'got "never"; allowed: "accept-absent" or "require"'),
        ("proxy.mitm.sni", [], "got an array; allowed: "),
        ("proxy.upstream.resolve", "a", 'got "a"; allowed: a table NAME = ADDR; NAME: '),
        ("proxy.upstream.resolve", {"a": 1}, "a: got 1; allowed: "),
        ("proxy.upstream.resolve", {"a": "b.test"}, 'a: got "b.test"; allowed: "ADDR"'),
        ("proxy.upstream.resolve", {"a": "127.0.0.1:0"}, 'a: got "127.0.0.1:0"; allowed: '),
        (
            "proxy.upstream.resolve",
            {"a": {"test": "::1"}},
            'a is a table; put a name with dots in quotes: "a.b"',
        ),
        ("proxy.upstream.resolve", {"A": "::1", "a": "::1"}, 'names "a" twice'),
        ("proxy.upstream.resolve", {"1.2.3.4": "::1"}, 'got "1.2.3.4"; allowed: a DNS name or "*.NAME"'),
        ("proxy.upstream.resolve", {"*": "::1"}, "allowed: a DNS name"),
        ("proxy.upstream.resolve", {"*.*.a": "::1"}, "allowed: a DNS name"),
        ("proxy.upstream.resolve", {"*.": "::1"}, "allowed: a DNS name"),
        ("proxy.upstream.resolve", ["a"], 'got "a"; allowed: NAME:ADDR'),
        ("proxy.upstream.resolve", [1], "got 1; allowed: "),
    ],
)
def test_refused(path: str, value: object, sentence: str) -> None:
    assert sentence in refusal(kind_of(path), value)


def test_a_passphrase_in_place_of_its_variable_is_not_repeated() -> None:
    text = refusal(kind_of("proxy.certificate.ca_key_passphrase_env"), "hunter2!")
    assert "hunter2" not in text
    assert "not the secret itself" in text


@pytest.mark.parametrize(
    ("path", "lowest", "highest"),
    [
        ("proxy.listen.backlog", 1, MAX_BACKLOG),
        ("proxy.certificate.leaf_days", 1, MAX_LEAF_DAYS),
        ("proxy.limits.tunnels", 1, MAX_TUNNELS),
        ("engine.threads", 0, MAX_THREADS),
    ],
)
def test_whole_numbers_at_their_bounds(path: str, lowest: int, highest: int) -> None:
    kind = kind_of(path)
    for value in (lowest, lowest + 1, highest - 1, highest):
        assert kind.parse(value) == value
    for value in (lowest - 1, highest + 1):
        assert f"from {lowest} to {highest}" in refusal(kind, value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.flag(), "true", True),
        (kinds.flag(), "false", False),
        (kinds.flag(), "True", "True"),
        (kinds.integer(0, 9, "x"), "7", 7),
        (kinds.integer(0, 9, "x"), "-7", -7),
        (kinds.integer(0, 9, "x"), "7.0", "7.0"),
        (kinds.integer(0, 9, "x"), "\u0667", "\u0667"),
        (kinds.integer(0, 9, "x"), "9" * 5000, "9" * 5000),
        (kinds.seconds(0, 9), "0.5", 0.5),
        (kinds.seconds(0, 9), "nan", "nan"),
        (kinds.path(), "true", "true"),
        (kinds.resolve_table(), "a:::1,b:1.2.3.4:5", ["a:::1", "b:1.2.3.4:5"]),
    ],
)
def test_text_becomes_what_toml_would_have(kind: Kind, text: str, value: object) -> None:
    assert kind.from_text(text) == value


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_default_is_allowed(key: object) -> None:
    assert isinstance(key, type(KEYS[0]))
    if key.default is None:
        assert key.example
    elif key.path != "proxy.upstream.resolve":  # shown as a table, which has no text form
        shown = key.kind.show(key.default).strip('"')
        assert key.kind.parse(key.kind.from_text(shown)) == key.default
