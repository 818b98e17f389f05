"""The judge is judged: what is exact is found exact, and every single deviation is found.

Real connections through the engine; the captures of this repository, and the shared ones where they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from polytls.capture.expected import HOST, expected_normal, hellos_of
from polytls.capture.goldens import Golden, Goldens
from polytls.capture.verify import Bench, Verdict, Verified, judge, verify
from polytls.errors import UserError
from polytls.fingerprint.normal import difference, normalise
from polytls.profiles import Catalog, HelloSpec
from polytls.profiles.derive import fields
from polytls.profiles.exact import GREASE, Ech, Entry, ExactHello, Numbers, Padding, Raw
from polytls.profiles.template import compile_template
from polytls.wire.client_hello import ClientHello, Extension, parse_client_hello
from polytls.wire.iana import ExtensionType
from tests.capture.hellos import CHROME, GOLDENS, OPENSSL, SHARED_GOLDENS, WITHOUT_SHARED

CATALOG = Catalog.load({}, "none")
EXACT = [spec for spec in CATALOG.specs() if spec.exact is not None]


def spec_of(name: str) -> HelloSpec:
    return CATALOG.require(name, source="test", key="name")


def exact_of(name: str) -> ExactHello:
    exact = spec_of(name).exact
    assert exact is not None
    return exact


def verified(
    specs: Sequence[HelloSpec], goldens: Goldens | None = None, connections: int = 8
) -> list[Verified]:
    async def run() -> list[Verified]:
        async with Bench() as bench:
            found = []
            for spec in specs:
                names = (spec.name, *CATALOG.aliases_of(spec))
                golden = goldens.of(names) if goldens else ()
                found.append(await verify(bench, spec, golden, connections=connections))
            return found

    return asyncio.run(run())


def test_every_exact_built_in_is_what_it_says() -> None:
    for result in verified(EXACT):
        assert (result.verdict, result.differences) == (Verdict.EXACT, ()), result
        assert result.reference == "its own definition"


@pytest.mark.parametrize(
    "directory",
    [
        GOLDENS,
        pytest.param(
            SHARED_GOLDENS, marks=pytest.mark.skipif(not SHARED_GOLDENS.is_dir(), reason=WITHOUT_SHARED)
        ),
    ],
    ids=["own", "shared"],
)
def test_every_built_in_with_a_golden_is_the_real_client(directory: Path) -> None:
    goldens = Goldens.in_directory(directory)
    compared = 0
    for result in verified(EXACT, goldens):
        if ".json" in result.reference:
            compared += 1
            # An imitation may be wrong where the profile follows the real browser: Firefox, Chrome's anchors.
            deliberate = bool(spec_of(result.profile).unlike_capture)
            wanted = (
                Verdict.AS_DEFINED if deliberate and "an imitation's" in result.reference else Verdict.EXACT
            )
            # Captures without second hellos show less of what is deliberate.
            allowed = {wanted} if directory == GOLDENS else {wanted, Verdict.EXACT}
            assert result.verdict in allowed, result
            assert bool(result.reason) == (result.verdict is Verdict.AS_DEFINED)
            if directory == GOLDENS:
                assert len(result.again) >= 2
    assert compared >= 25


def test_a_profile_by_knobs_promises_nothing_but_freshness() -> None:
    (result,) = verified([spec_of("default")])
    assert result == Verified("default", Verdict.UNCHECKED, "nothing: it is defined by knobs", 8)
    golden = Golden("x.json", tuple(parse_client_hello(hello) for hello in CHROME))
    assert judge(spec_of("default"), golden.hellos, [golden]).verdict is Verdict.EXACT


def without(hello: ExactHello, kind: int) -> ExactHello:
    return replace(hello, extensions=tuple(entry for entry in hello.extensions if entry.type != kind))


def changed(hello: ExactHello, kind: int, body: Numbers | Raw | Ech) -> ExactHello:
    entries = tuple(replace(entry, body=body) if entry.type == kind else entry for entry in hello.extensions)
    return replace(hello, extensions=entries)


CHROME_HELLO, CURL_HELLO = exact_of("chrome-131"), exact_of("curl")
DEVIATIONS = {
    "record version": (CHROME_HELLO, replace(CHROME_HELLO, record_version=0x0303)),
    "cipher suites": (
        CHROME_HELLO,
        replace(CHROME_HELLO, cipher_suites=(*CHROME_HELLO.cipher_suites[:-1], 0x000A)),
    ),
    "order of suites": (
        CHROME_HELLO,
        replace(CHROME_HELLO, cipher_suites=(GREASE, 0x1302, 0x1301, *CHROME_HELLO.cipher_suites[3:])),
    ),
    "an extension less": (CHROME_HELLO, without(CHROME_HELLO, ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP)),
    "an extension more": (
        CHROME_HELLO, replace(CHROME_HELLO, extensions=(*CHROME_HELLO.extensions[:-1], Entry(0x1234),
        CHROME_HELLO.extensions[-1])), ), "not permuted": (CHROME_HELLO, replace(CHROME_HELLO,
        permute=False)), "permuted": (CURL_HELLO, replace(CURL_HELLO, permute=True)), "order": ( CURL_HELLO,
        replace(CURL_HELLO, extensions=(CURL_HELLO.extensions[1], CURL_HELLO.extensions[0],
        *CURL_HELLO.extensions[2:])), ), "ECH": (CHROME_HELLO, changed(CHROME_HELLO,
        ExtensionType.ENCRYPTED_CLIENT_HELLO, Ech((3,), (144, 176)))), "groups": (CHROME_HELLO,
        changed(CHROME_HELLO, ExtensionType.SUPPORTED_GROUPS, Numbers((GREASE, 0x11EC, 0x1D, 0x17, 0x19)))),
        "key shares": (CHROME_HELLO, changed(CHROME_HELLO, ExtensionType.KEY_SHARE, Numbers((GREASE,
        0x001D)))), "reused key": (CHROME_HELLO, replace(CHROME_HELLO, reuse_x25519=True)), "a raw body":
        (CURL_HELLO, changed(CURL_HELLO, ExtensionType.EC_POINT_FORMATS, Raw(b"\1\0"))), "padding":
        (CURL_HELLO, replace(CURL_HELLO, padding=Padding.NONE)), }  # fmt: skip


def test_every_single_deviation_is_found() -> None:
    """Sent is the deviating hello; promised, by file and by golden, the other one."""
    sent = {
        name: replace(
            spec_of("chrome-131"),
            name=name.replace(" ", "-"),
            **fields(other),
            exact=promised,
            template=compile_template(other),
        )
        for name, (promised, other) in DEVIATIONS.items()
    }
    results = verified(list(sent.values()))
    assert {result.profile for result in results if result.verdict is Verdict.DIFFERS} == {
        spec.name for spec in sent.values()
    }
    for result in results:
        assert result.differences, result


def test_what_an_imitation_has_otherwise_is_no_failure_where_the_definition_holds() -> None:
    spec = spec_of("chrome-131")
    sent = hellos_with_fresh_parts(CHROME_HELLO)
    other = hellos_of(without(CHROME_HELLO, ExtensionType.STATUS_REQUEST), host=HOST.encode())
    imitation = Golden("imitation.json", tuple(other), imitation=True)
    # Without a reason given it is one.
    assert judge(spec, sent, [imitation]).verdict is Verdict.DIFFERS
    spec = replace(spec, unlike_capture="the real one staples")
    result = judge(spec, sent, [imitation])
    assert (result.verdict, result.reason) == (Verdict.AS_DEFINED, "the real one staples")
    assert result.differences == ("extensions: has status_request, which is not expected",)
    real = replace(imitation, imitation=False)
    assert judge(spec, sent, [real]).verdict is Verdict.DIFFERS
    # Where what was sent is not what the file says, nothing is deliberate.
    wrong = replace(spec, exact=replace(CHROME_HELLO, permute=False))
    assert judge(wrong, sent, [imitation]).verdict is Verdict.DIFFERS


def hellos_with_fresh_parts(hello: ExactHello) -> list[ClientHello]:
    """Two captured Chrome hellos, in all but name what `hello` says."""
    assert hello is CHROME_HELLO
    return [parse_client_hello(sample) for sample in CHROME]


def test_a_golden_is_exact_for_its_own_captures_and_stale_twice() -> None:
    spec, sent = spec_of("chrome-131"), hellos_with_fresh_parts(CHROME_HELLO)
    golden = Golden("golden.json", tuple(sent))
    assert judge(spec, sent, [golden]) == Verified("chrome-131", Verdict.EXACT, "golden.json", 3)
    again = judge(spec, [sent[0], sent[0]], [golden])
    assert again.verdict is Verdict.DIFFERS
    assert "the random is not new each time" in again.differences
    assert judge(spec, [], [golden]).differences == ("no hello arrived",)
    openssl = [parse_client_hello(sample) for sample in OPENSSL]
    mixed = judge(spec, [sent[0], openssl[0]], [golden])
    assert any("not one client's" in text for text in mixed.differences)
    failed = judge(spec, sent, [golden], ["the handshake failed: no"])
    assert failed.verdict is Verdict.DIFFERS
    assert failed.as_dict() == {
        "profile": "chrome-131",
        "verdict": "differs",
        "reference": "golden.json",
        "connections": 3,
        "differences": ["the handshake failed: no"],
        "second_hellos": [],
        "reason": "",
    }


def test_a_hello_that_no_server_takes_arrives_and_fails() -> None:
    """TLS 1.3 alone, with key shares and groups that OpenSSL does not have."""
    hello = changed(CURL_HELLO, ExtensionType.SUPPORTED_VERSIONS, Numbers((0x0304,)))
    hello = changed(hello, ExtensionType.SUPPORTED_GROUPS, Numbers((0x6399,)))
    hello = changed(hello, ExtensionType.KEY_SHARE, Numbers((0x6399,)))
    spec = replace(
        spec_of("curl"), name="none", **fields(hello), exact=hello, template=compile_template(hello)
    )
    (result,) = verified([spec], connections=2)
    assert result.verdict is Verdict.DIFFERS
    assert result.connections == 2
    assert len(result.differences) == 1
    assert result.differences[0].startswith("the handshake failed: ")


def test_the_expected_hello_is_that_of_the_captures() -> None:
    """For profiles that follow their golden in everything."""
    for spec in EXACT:
        path = GOLDENS / f"{spec.name}.json"
        if spec.exact is None or not path.exists():
            continue
        (golden,) = Goldens.in_directory(GOLDENS).of([spec.name])
        found = difference(normalise(golden.hellos), expected_normal(spec.exact, host=HOST.encode()))
        assert not found or golden.imitation, (spec.name, found)


def test_padding_follows_the_length_of_the_name() -> None:
    for length in range(1, 250):
        (hello,) = hellos_of(CURL_HELLO, host=b"a" * length)
        padding = hello.extension(ExtensionType.PADDING)
        size = 4 + 2 + 32 + 1 + 32 + 2 + 2 * len(hello.cipher_suites) + 2 + 2
        size += sum(4 + len(extension.body) for extension in hello.extensions)
        assert (size == 512) if padding is not None and len(padding) > 1 else size >= 508
        assert normalise([hello]).padding <= {"to 512 bytes, last", "not needed"}


def test_goldens_are_found_without_regard_to_punctuation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory of captures"):
        Goldens.in_directory(tmp_path)
    (tmp_path / "safari184_ios.json").write_text(f'{{"samples": ["{OPENSSL[0].hex()}"], "imitation": true}}')
    goldens = Goldens.in_directory(tmp_path)
    (golden,) = goldens.of(["safari-18.4-ios"])
    assert (golden.name, golden.imitation) == ("safari184_ios.json", True)
    assert goldens.of(["other"]) == ()
    mixed = f'{{"samples": ["{OPENSSL[0].hex()}", "{CHROME[0].hex()}"]}}'
    (tmp_path / "two.json").write_text(mixed)
    with pytest.raises(UserError, match="holds 2 clients"):
        Goldens.in_directory(tmp_path).of(["two"])
    (tmp_path / "tw-o.json").write_text(mixed)
    with pytest.raises(UserError, match="captures of one name"):
        Goldens.in_directory(tmp_path)


def test_a_malformed_hello_of_ours_is_a_difference() -> None:
    (hello,) = hellos_of(CURL_HELLO, host=b"a")
    broken = replace(hello, extensions=(*hello.extensions[1:], Extension(ExtensionType.SERVER_NAME, b"")))
    assert judge(spec_of("curl"), [broken], []).verdict is Verdict.DIFFERS


QUIRKS = {
    "gnutls-3.7": {"late_change_cipher_spec": False, "keep_session_id": False},
    "java-17": {"new_shares_on_cookie": False, "late_change_cipher_spec": False},
    "curl-7.88": {"padding": Padding.BORINGSSL},
}
FOUND = {
    "gnutls-3.7": (
        "asked for another group: there is a ChangeCipherSpec before it",
        "asked for its cookie and another group: there is a ChangeCipherSpec before it",
        "resuming: not kept: the session id",
    ),
    "java-17": (
        "asked for another group: there is a ChangeCipherSpec before it",
        "asked for its cookie: kept, which is not expected: the key shares",
        "asked for its cookie: there is a ChangeCipherSpec before it",
    ),
    "curl-7.88": ("asked for another group: is not padded", "asked for its cookie: is not padded"),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_what_only_second_hellos_show(name: str) -> None:
    """Sent is what lacks a quirk, and the first hello is exact."""
    exact = replace(exact_of(name), **QUIRKS[name])  # type: ignore[arg-type]
    spec = replace(spec_of(name), exact=exact, template=compile_template(exact))
    goldens = Goldens.in_directory(GOLDENS)
    (result,) = verified([spec], goldens)
    assert (result.verdict, result.differences) == (Verdict.DIFFERS, FOUND[name])
    (result,) = verified([spec_of(name)], goldens)
    assert (result.verdict, result.reference) == (Verdict.EXACT, f"{name}.json")


def test_a_cookie_in_another_place_and_a_session_that_is_not_offered() -> None:
    exact = exact_of("firefox-esr-153")
    cookie = next(entry for entry in exact.extensions if entry.type == ExtensionType.COOKIE)
    exact = replace(exact, extensions=(cookie, *without(exact, ExtensionType.COOKIE).extensions))
    spec = replace(
        spec_of("firefox-esr-153"), exact=exact, template=compile_template(exact), resumption=False
    )
    (result,) = verified([spec], Goldens.in_directory(GOLDENS))
    assert result.verdict is Verdict.DIFFERS
    assert set(result.differences) == {
        "asked for its cookie: has no new cookie behind signature_algorithms",
        "asked for its cookie: has a new cookie behind nothing",
        "resuming: has no new pre_shared_key behind encrypted_client_hello (1)",
        "resuming: still has session_ticket",
    }


def test_second_hellos_that_cannot_be_read(tmp_path: Path) -> None:
    good = OPENSSL[0].hex()
    pairs: list[object] = [
        {"first": good},
        {"first": good, "second": "00"},
        {"first": good, "second": "x"},
        [],
        "x",
    ]
    for pair in pairs:
        document = {"samples": [good], "resumed": [pair]}
        (tmp_path / "one.json").write_text(json.dumps(document))
        with pytest.raises(UserError, match="one of its second hellos cannot be read"):
            Goldens.in_directory(tmp_path).of(["one"])
    (tmp_path / "one.json").write_text(json.dumps({"samples": [good], "retry": [], "resumed": []}))
    assert Goldens.in_directory(tmp_path).of(["one"])[0].seconds == ()
