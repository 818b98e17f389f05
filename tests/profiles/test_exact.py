"""The [hello] table: what may be written, what is said of mistakes, that it reads back; and the template."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles import template
from polytls.profiles.bodies import CODECS, MAX_ECH_PAYLOAD_BYTES, MIN_ECH_PAYLOAD_BYTES, SIMPLE
from polytls.profiles.boringssl import GROUPS
from polytls.profiles.catalog import Catalog
from polytls.profiles.exact import (
    GREASE,
    MAX_BODIES_BYTES,
    MAX_ENTRIES,
    MAX_GREASE_IN_LIST,
    Anchors,
    Ech,
    Entry,
    ExactHello,
    InexactError,
    Limit,
    Numbers,
    Padding,
    Protocols,
    Raw,
    check,
)
from polytls.profiles.exact_toml import as_table, as_toml, parse_hello
from polytls.wire import iana
from tests.profiles.expand import parse as parse_template

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALL: dict[str, object] = {
    "cipher_suites": ["GREASE", "TLS_AES_128_GCM_SHA256", "0xc008"],
    "extensions": [
        "GREASE",
        "server_name",
        {"supported_groups": ["GREASE", "P-256"]},
        {"signature_algorithms": ["rsa_pss_rsae_sha384", "rsa_pss_rsae_sha384"]},
        {"key_share": ["GREASE", "secp256r1"]},
        {"supported_versions": ["TLS1.3"]},
    ],
}


def parse(**changes: object) -> ExactHello:
    return parse_hello({**SMALL, **changes}, "profiles.x.hello", "f.toml")


def problem(**changes: object) -> str:
    with pytest.raises(ProfileError) as caught:
        parse(**changes)
    return str(caught.value).removeprefix("f.toml: profiles.x.hello.")


def with_entry(*entries: object) -> str:
    extensions = SMALL["extensions"]
    assert isinstance(extensions, list)
    return problem(extensions=[*extensions, *entries]).removeprefix("extensions[6]: ")


def test_a_small_hello() -> None:
    hello = parse()
    assert hello.cipher_suites == (GREASE, 0x1301, 0xC008)
    assert hello.numbers(13) == (0x0805, 0x0805)
    assert hello.extensions[0] == Entry(GREASE, fixed=True)
    assert (hello.record_version, hello.permute, hello.padding) == (0x0301, False, Padding.NONE)
    assert hello.grease


def test_its_template_byte_by_byte() -> None:
    assert template.compile_template(parse()).hex(" ", 1).replace(" ", "") == "".join(
        (
            "01 0301 00",  # format, record version, flags
            "0006 0a0a 1301 c008",
            "01 00",  # compression
            "0004 0a0a 0017",  # key shares
            "0000 0000 00",  # no ECH
            "0042",
            "0a0a 02 02 01 0000 00",  # GREASE, first extension slot, fixed
            "0000 01 00 00 0000 00",  # server_name is BoringSSL's
            "000a 00 00 00 0006 0004 0a0a 0017 03 0002 01",  # GREASE of the groups at offset 2
            "000d 00 00 00 0006 0004 0805 0805 00",
            "0033 01 00 00 0000 00",
            "002b 00 00 00 0003 02 0304 00",
        )
    ).replace(" ", "")


def test_flags_of_the_template() -> None:
    assert parse_template(template.compile_template(parse(permute=True))).flags == 1
    assert parse_template(template.compile_template(parse(padding="boringssl"))).flags == 4
    assert parse_template(template.compile_template(parse(padding="openssl"))).flags == 4 | 8 | 16
    assert parse_template(template.compile_template(parse(new_shares_on_cookie=True))).flags == 32
    assert parse_template(template.compile_template(parse(late_change_cipher_spec=True))).flags == 64
    assert parse_template(template.compile_template(parse(keep_session_id=True))).flags == 128


@pytest.mark.parametrize(
    ("item", "entry"),
    [
        ("session_ticket", Entry(35)),
        ({"id": "session_ticket", "full_only": True}, Entry(35, full_only=True)),
        ({"id": 0x1234}, Entry(0x1234)),
        ({"id": 0x1234, "body": "00fF", "fixed": True}, Entry(0x1234, Raw(b"\0\xff"), fixed=True)),
        ({"id": "GREASE", "body": "00"}, Entry(GREASE, Raw(b"\0"), fixed=True)),
        ("status_request", Entry(5, Raw(b"\1\0\0\0\0"))),
        ({"id": "status_request_v2", "body": "00"}, Entry(17, Raw(b"\0"))),
        ({"alpn": ["h2"]}, Entry(16, Protocols(("h2",)))),
        ({"application_layer_protocol_negotiation": ["h2"]}, Entry(16, Protocols(("h2",)))),
        ({"record_size_limit": 16385}, Entry(28, Limit(16385))),
        ({"id": 28, "body": "4001"}, Entry(28, Limit(16385))),
        ({"trust_anchors": ["44947.2.1", "0x80"]}, Entry(51764, Anchors((b"\x82\xdf\x13\2\1", b"\x80")))),
        ({"psk_key_exchange_modes": ["psk_dhe_ke", "0x0b"]}, Entry(45, Numbers((1, 0x0B)))),
        ({"compress_certificate": ["zstd", "0x0005"]}, Entry(27, Numbers((3, 5)))),
        (
            {"encrypted_client_hello": {"aeads": ["ChaCha20Poly1305"], "payloads": [239], "psk_step": 32}},
            Entry(0xFE0D, Ech((3,), (239,), 32)),
        ),
    ],
)
def test_entries(item: object, entry: Entry) -> None:
    extensions = SMALL["extensions"]
    assert isinstance(extensions, list)
    hello = parse(extensions=[*extensions, item])
    assert hello.extensions[-1] == entry
    assert parse_hello(tomllib.loads(as_toml(hello)), "x", "x") == hello


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"extension": []}, 'extension: unknown key (did you mean "extensions"?); allowed: record_version, '),
        ({"permute": 1}, "permute: is an integer; allowed: true, false"),
        ({"padding": "512"}, 'padding: is "512"; allowed: none, boringssl, openssl'),
        ({"record_version": "TLS9"}, 'record_version: "TLS9": unknown TLS version (did you mean "TLS1.3"?)'),
        ({"record_version": "0x1234"}, "record_version: is 0x1234; allowed: TLS1.0"),
        ({"cipher_suites": []}, "cipher_suites: is empty; allowed: at least one cipher suite"),
        ({"cipher_suites": "x"}, "cipher_suites: is a string; allowed: an array of cipher suites"),
        (
            {"cipher_suites": [1]},
            "cipher_suites: holds an integer; allowed: names of cipher suites, numbers as",
        ),
        (
            {"cipher_suites": ["TLS_NULL_WITH_NULL_NUL"]},
            'cipher_suites: "TLS_NULL_WITH_NULL_NUL": unknown cipher suite (did you mean "TLS_NULL_',
        ),
        ({"cipher_suites": ["0x1a1a"]}, 'cipher_suites: holds "0x1a1a", a GREASE value; allowed: "GREASE"'),
        ({"compression_methods": ["DEFLATE"]}, 'compression_methods: has no "null"; allowed: '),
        ({"reuse_x25519": True}, "reuse_x25519: is true without a share of x25519 and of a hybrid group"),
        ({"extensions": "x"}, "extensions: is a string; allowed: an array of extensions, each a name, "),
        (
            {"extensions": [{"supported_versions": ["TLS1.3"]}]},
            "extensions: has TLS1.3 in supported_versions but no supported_groups; allowed: both or neither",
        ),
    ],
)
def test_errors(changes: dict[str, object], sentence: str) -> None:
    assert problem(**changes).startswith(sentence)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (1, "is an integer; allowed: a name, { name = body }, or"),
        ("sni", '"sni": unknown extension'),
        ("supported_version", '"supported_version": unknown extension (did you mean "supported_versions"?)'),
        ("alpn", '"alpn" needs a body; allowed: { alpn = body }, array of protocol names'),
        ("status_request_v2", '"status_request_v2" needs a body; allowed: { id = "status_request_v2", body'),
        ({"server_name": "x"}, '"server_name" has no body in words; allowed: { id = "server_name", body'),
        ({"id": "cookie", "body": "00"}, "the body of cookie is written for each connection"),
        ({"id": 16, "body": "00"}, "alpn is written in words; allowed: { alpn = array of protocol names }"),
        ({"id": 0x1A1A}, 'id is a GREASE value; allowed: id = "GREASE", drawn afresh'),
        ({"id": 70000}, "id is 70000; allowed: 0 to 65535"),
        ({"id": 9999, "body": "0"}, 'body is "0"; allowed: a string of hexadecimal digits, two a byte'),
        ({"id": 9999, "bodies": "00"}, 'has an unknown key "bodies"; allowed: a table of id, body'),
        ({}, "names 0 extensions; allowed: "),
        ({"alpn": ["h2"], "record_size_limit": 64}, "names 2 extensions; allowed: "),
        ({"alpn": []}, "alpn is empty; allowed: at least one protocol name"),
        ({"alpn": ["h2"], "fixed": 1}, "is an integer; allowed: true, false"),
        ({"record_size_limit": 63}, "record_size_limit is 63; allowed: 64 to 65535"),
        ({"trust_anchors": ["x"]}, 'trust_anchors holds "x"; allowed: identifiers as "44947.2.1"'),
        (
            {"encrypted_client_hello": {"aeads": ["AES-128-GCM"]}},
            "encrypted_client_hello leaves out payloads",
        ),
        (
            {"encrypted_client_hello": {"aeads": ["0x0009"], "payloads": [239]}},
            "encrypted_client_hello names no AEAD, an unknown one, or no payload",
        ),
        ("padding", '"padding" is written last where it is needed'),
        ({"id": "padding"}, "padding is written last where it is needed"),
        ({"id": "pre_shared_key"}, "pre_shared_key is written last where a session is resumed"),
        ({"id": "early_data"}, "early_data is never sent"),
        ("server_name", "server_name is there twice; allowed: each extension once"),
        ({"id": "cookie", "full_only": True}, "full_only is for session_ticket, not for cookie"),
        ({"application_settings": ["h2"]}, "application_settings names a protocol that alpn lacks"),
    ],
)
def test_errors_of_entries(entry: object, sentence: str) -> None:
    assert with_entry(entry).startswith(sentence)


def test_two_grease_extensions_and_no_more() -> None:
    assert with_entry("GREASE", "GREASE").startswith("extensions[7]: is a third GREASE extension")


@pytest.mark.parametrize(
    ("groups", "shares", "sentence"),
    [
        (["x25519"], ["secp256r1"], "has a key share of a group that supported_groups lacks"),
        (["x448"], ["x448"], "no key share can be made for 0x001e; allowed: X25519MLKEM768, "),
        (["x25519"], ["x25519", "x25519"], "has a key share twice"),
        (["x25519"], ["GREASE", "x25519"], "has a key share of a group that supported_groups lacks"),
    ],
)
def test_key_shares_are_some_of_the_groups(groups: list[str], shares: list[str], sentence: str) -> None:
    extensions = [
        {"supported_groups": groups},
        {"key_share": shares},
        {"signature_algorithms": ["ed25519"]},
        {"supported_versions": ["TLS1.3"]},
    ]
    assert problem(extensions=extensions).removeprefix("extensions[1]: ").startswith(sentence)


def small(*more: Entry, suites: tuple[int, ...] = (0x1301,)) -> ExactHello:
    return ExactHello(suites, (*parse().extensions, *more))


@pytest.mark.parametrize("count", [MAX_ENTRIES - 7, MAX_ENTRIES - 6, MAX_ENTRIES - 5])
def test_entry_limit(count: int) -> None:
    hello = small(*(Entry(1000 + number) for number in range(count)))
    if len(hello.extensions) > MAX_ENTRIES:
        with pytest.raises(InexactError, match="at most 255"):
            check(hello)
    else:
        assert len(parse_template(template.compile_template(hello)).entries) == len(hello.extensions)


@pytest.mark.parametrize("size", [MAX_BODIES_BYTES - 1, MAX_BODIES_BYTES, MAX_BODIES_BYTES + 1])
def test_body_limit(size: int) -> None:
    hello = small(Entry(1000, Raw(bytes(size))))
    if size > MAX_BODIES_BYTES:
        with pytest.raises(InexactError, match="bytes of bodies"):
            check(hello)
    else:
        template.compile_template(hello)


@pytest.mark.parametrize("count", [MAX_GREASE_IN_LIST - 1, MAX_GREASE_IN_LIST, MAX_GREASE_IN_LIST + 1])
def test_grease_limit(count: int) -> None:
    for hello in (
        small(suites=(GREASE,) * count),
        small(Entry(50, Numbers((GREASE,) * count))),
    ):
        if count > MAX_GREASE_IN_LIST:
            with pytest.raises(InexactError, match="GREASE too often"):
                check(hello)
        else:
            template.compile_template(hello)


# --- properties -------------------------------------------------------------------------------------

u16 = st.integers(0, 0xFFFF).filter(lambda value: not iana.is_grease(value))
plain_numbers = st.lists(u16, min_size=1, max_size=6).map(tuple)
with_grease = st.lists(u16 | st.just(GREASE), min_size=1, max_size=6).map(tuple)
protocol_names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=9)


def numbers(number: int, values: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Entry]:
    return st.builds(lambda chosen: Entry(number, Numbers(chosen)), values)


@st.composite
def hellos(draw: st.DrawFn) -> ExactHello:
    """Any hello that passes `check`."""
    groups = draw(st.lists(u16 | st.sampled_from([entry.id for entry in GROUPS.entries]), max_size=6))
    groups = list(dict.fromkeys([0x001D, *groups, *draw(st.sampled_from(((), (GREASE,))))]))
    known = [group for group in groups if group == GREASE or group in {e.id for e in GROUPS.entries}]
    alpn = draw(st.lists(protocol_names, min_size=1, max_size=4, unique=True))
    needed = [
        Entry(10, Numbers(tuple(groups))),
        Entry(51, Numbers(tuple(draw(st.lists(st.sampled_from(known), unique=True))))),
        Entry(16, Protocols(tuple(alpn))),
        draw(numbers(13, with_grease)),
        draw(numbers(43, with_grease.map(lambda values: (*values, 0x0304)))),
    ]
    lengths = st.integers(MIN_ECH_PAYLOAD_BYTES, MAX_ECH_PAYLOAD_BYTES)
    optional = [
        draw(numbers(50, with_grease)),
        draw(numbers(34, with_grease)),
        draw(numbers(27, plain_numbers)),
        draw(numbers(45, st.lists(st.integers(0, 255), max_size=4).map(tuple))),
        Entry(17613, Protocols((alpn[0],))),
        Entry(28, Limit(draw(st.integers(64, 0xFFFF)))),
        Entry(51764, Anchors(tuple(draw(st.lists(st.binary(min_size=1, max_size=9), max_size=4))))),
        Entry(
            0xFE0D,
            Ech(tuple(draw(st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=3))), (draw(lengths),)),
        ),
        Entry(35, full_only=draw(st.booleans())),
        Entry(
            draw(u16.filter(lambda value: value not in {*CODECS, *SIMPLE, 21, 41, 42})),
            Raw(draw(st.binary())),
        ),
        *(Entry(number, Raw(body)) for number, body in SIMPLE.items() if number != 35),
    ]
    chosen = draw(st.lists(st.sampled_from(optional), unique_by=lambda entry: entry.type))
    grease = [
        Entry(GREASE, Raw(draw(st.binary(max_size=3))), fixed=True) for _ in range(draw(st.integers(0, 2)))
    ]
    return ExactHello(
        cipher_suites=draw(with_grease),
        extensions=tuple(draw(st.permutations([*needed, *chosen, *grease]))),
        record_version=draw(st.sampled_from((0x0300, 0x0301, 0x0303))),
        compression_methods=draw(st.sampled_from(((0,), (1, 0), (0, 64)))),
        permute=draw(st.booleans()),
        padding=draw(st.sampled_from(Padding)),
        new_shares_on_cookie=draw(st.booleans()),
        late_change_cipher_spec=draw(st.booleans()),
        keep_session_id=draw(st.booleans()),
    )


@given(hellos())
def test_what_is_written_reads_back_and_compiles(hello: ExactHello) -> None:
    check(hello)
    assert parse_hello(tomllib.loads(as_toml(hello)), "x", "x") == hello
    parsed = parse_template(template.compile_template(hello))
    assert [entry.type for entry in parsed.entries] == [entry.type for entry in hello.extensions]
    assert parsed.cipher_suites == hello.cipher_suites


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4)
)
words = st.sampled_from(
    ("id", "body", "fixed", "full_only", "GREASE", *(codec.key for codec in CODECS.values()))
)
toml = st.recursive(
    scalars | words,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def attempt(table: dict[str, object]) -> Catalog | ProfileError:
    try:
        return Catalog.load({"mine": {"hello": table}}, "f.toml")
    except ProfileError as error:
        return error


@given(
    st.dictionaries(st.sampled_from((*as_table(parse()), "reuse_x25519", "x")), toml, max_size=3),
    st.lists(toml),
)
def test_any_table_is_a_hello_or_a_profile_error(changes: dict[str, object], entries: list[object]) -> None:
    extensions = SMALL["extensions"]
    assert isinstance(extensions, list)
    table = {**SMALL, "extensions": [*extensions, *entries], **changes}
    loaded = attempt(table)
    if isinstance(loaded, ProfileError):
        assert loaded.source == "f.toml"
        assert str(loaded).isprintable()
        return
    spec = loaded.require("mine", source="", key="")
    assert spec.exact is not None
    assert spec.template is not None
    assert parse_hello(tomllib.loads(as_toml(spec.exact)), "x", "x") == spec.exact


def test_an_exact_table_is_complete() -> None:
    with pytest.raises(ProfileError, match=r"profiles\.x\.grease: has no meaning beside \[hello\]"):
        Catalog.load({"x": {"hello": SMALL, "grease": True}}, "f.toml")
    with pytest.raises(ProfileError, match=r"profiles\.x\.captured_on: got 1; allowed: one line"):
        Catalog.load({"x": {"hello": SMALL, "captured_on": 1}}, "f.toml")
    table = tomllib.loads("captured_on = 2026-01-02\nsession_resumption = false\n")
    spec = Catalog.load({"x": {"hello": SMALL, **table}}, "f.toml").require("x", source="", key="")
    assert (spec.captured_on, spec.resumption, spec.base) == ("2026-01-02", False, None)
    assert (spec.min_tls, spec.max_tls, spec.cert_compression) == (0x0304, 0x0304, ())
    assert spec.sigalgs == (0x0805,)
