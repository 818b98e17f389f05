"""Profiles from texts: what is sent has the text exactly, for every built-in; what was filled in is said."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytls.capture.expected import HOST, hellos_of
from polytls.capture.from_text import FromText, learn_text, text_of
from polytls.capture.pcap import CaptureError
from polytls.capture.verify import Bench
from polytls.profiles import Catalog, HelloSpec
from polytls.profiles.derive import fields
from polytls.profiles.exact import GREASE, ExactHello, check
from polytls.profiles.exact_toml import as_table, parse_hello
from polytls.profiles.template import compile_template
from polytls.wire.client_hello import parse_client_hello
from polytls.wire.iana import ExtensionType
from tests.capture.hellos import SHARED_GOLDENS, WITHOUT_SHARED
from tests.golden.profiles import CLIENTS, samples

CATALOG = Catalog.load({}, "none")
SPECS = CATALOG.specs()
EXACT = [spec for spec in SPECS if spec.exact is not None]
FORMS = ("JA3", "JA4_r", "JA4_ro")
CONNECTIONS = 4


def exact_of(spec: HelloSpec) -> ExactHello:
    assert spec.exact is not None
    return spec.exact


def texts(spec: HelloSpec, form: str) -> list[str]:
    """Every text that the profile's hellos have, in the profile's own order."""
    return sorted({text_of(hello, form) for hello in hellos_of(exact_of(spec), host=HOST.encode())})


def spec_of(found: FromText, name: str) -> HelloSpec:
    """As it is when it has been written and read."""
    hello = parse_hello(as_table(found.hello), "hello", "test")
    assert hello == found.hello
    spec = replace(found.base, name=name, **fields(hello))
    return replace(spec, exact=hello, template=compile_template(hello))


def sent(learned: list[tuple[FromText, str]]) -> list[set[str]]:
    """The texts of what the engine really sends, for each."""

    async def run() -> list[set[str]]:
        found = []
        async with Bench() as bench:
            for one, name in learned:
                visits, problems = await bench.visits(spec_of(one, name), CONNECTIONS)
                assert problems == [], name
                assert len(visits) == CONNECTIONS
                found.append({text_of(visit.hello, one.told.form) for visit in visits})
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_of_every_builtin_over_the_wire(form: str) -> None:
    learned = [(learn_text(text, SPECS), spec.name) for spec in EXACT for text in texts(spec, form)]
    assert len(learned) >= len(EXACT)
    assert all(one.exact for one, _ in learned)
    for (one, name), seen in zip(learned, sent(learned), strict=True):
        assert seen == {one.told.text}, (name, one.notes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", ["chrome", "firefox", "safari", "openssl", "java"])
def test_over_another_base_it_is_as_exact(form: str, base: str) -> None:
    """But for padding, which is the doing of a hello's length: that is said."""
    named = CATALOG.require(base, source="", key="")
    learned = []
    for spec in EXACT:
        for text in texts(spec, form):
            found = learn_text(text, SPECS, named)
            assert found.base is named
            if found.exact:
                learned.append((found, spec.name))
            else:
                assert found.notes[-1].startswith("NOT EXACT: what is sent first")
                listed = read_extensions(found)
                assert (ExtensionType.PADDING in listed) != (ExtensionType.PADDING in found.told.extensions)
    assert len(learned) >= len(EXACT) - 5
    for (one, name), seen in zip(learned, sent(learned), strict=True):
        assert seen == {one.told.text}, (name, one.notes)


def read_extensions(found: FromText) -> set[int]:
    return {
        number for hello in hellos_of(found.hello, host=HOST.encode()) for number in hello.extension_types
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in CLIENTS.glob("*.json")))
def test_the_text_of_every_capture_becomes_its_hello_or_says_that_it_does_not(name: str) -> None:
    for sample in samples(name):
        hello = parse_client_hello(sample)
        for form in FORMS:
            found = learn_text(text_of(hello, form), SPECS)
            assert found.exact, (form, found.notes)


def test_published_vectors() -> None:
    path = SHARED_GOLDENS / "ja4-vectors.json"
    if not path.exists():
        pytest.skip(WITHOUT_SHARED)
    exact = 0
    for vector in json.loads(path.read_text())["vectors"]:
        for key, form in (("ja4_r", "JA4_r"), ("ja4_ro", "JA4_ro")):
            text = vector.get(key) or vector.get(key.upper()) or vector.get(form)
            if not text:
                continue
            try:
                found = learn_text(text, SPECS)
            except CaptureError:
                continue
            check(found.hello)
            exact += found.exact
    assert exact > 0


def notes(text: str, base: str | None = None) -> tuple[str, ...]:
    named = None if base is None else CATALOG.require(base, source="", key="")
    return learn_text(text, SPECS, named).notes


def test_the_report_says_what_was_filled_and_from_where() -> None:
    (chrome,) = texts(CATALOG.require("chrome", source="", key=""), "JA3")
    said = notes(chrome)
    assert said[0].startswith("the base is chrom")
    assert "the nearest of 59, one of 3 that are equally near; --base names another, 100% alike" in said[0]
    assert "JA3 does not tell, and chromium-156 supplied: bodies of extensions (" in said[1]
    for word in ("signature_algorithms", "key_share", "alpn", "supported_versions", "with GREASE"):
        assert word in said[1]
    assert said[2] == "chromium-156 permutes its extensions; JA3 has one order, and the profile keeps to it"
    (java,) = texts(CATALOG.require("java", source="", key=""), "JA4_r")
    said = notes(java, "firefox")
    assert said[0] == "the base is firefox-155 (named, 52% alike)" or "(named, " in said[0]
    assert any(
        note.startswith("JA4_r is sorted: cipher suites and extensions have the order of") for note in said
    )
    assert any(note.startswith("cipher suites that firefox-155 lacks were put last") for note in said)
    assert (
        "extensions that firefox-155 lacks were put last: status_request_v2, signature_algorithms_cert"
        in said
    )
    assert "status_request_v2, which firefox-155 lacks, is as in java-17" in said


@pytest.mark.parametrize(
    ("text", "base", "says"),
    [
        ("771,4865,0-10-13-43-51-4660,29,", None, "0x1234 is sent with an empty body"),
        ("771,4865-49195,0-10-13-43-41-51,29,", "firefox", "pre_shared_key is not in a first hello"),
        ("771,49195,0-10-13-43,29,", "chrome", "TLS 1.3 is not offered: the text lacks a suite"),
        ("771,4865,0-10-13-43-51,256,", "chrome", "there is no key share: the engine can make none"),
        ("771,4865,0-10-13-43-51,24,", "chrome", "the key share is of secp384r1"),
        ("771,4865,21-0-10-13-43-51,29,", "openssl", "NOT EXACT: what is sent first, to a name of 11"),
        ("t12d0102h1_c02b_", "go", "alpn is as in"),
    ],
)
def test_what_is_said_of_odd_texts(text: str, base: str | None, says: str) -> None:
    said = notes(text, base)
    assert any(says in note for note in said), said


@pytest.mark.parametrize(
    ("text", "base", "says"),
    [
        ("0" * 32, None, "a hash"),
        ("771,1,2,3,4", "default", "no extension 10"),
        ("771,1,2,,", "default", "default is a profile by knobs; a --base has a hello of its own"),
        ("771,4865,16-17513-17613,,", None, "no hello that the engine could send has this text: "),
        ("771,4865,17513,,", None, "application_settings_old is for protocols of alpn, which is not there"),
        ("t12d0102zz_c02b_", None, "which protocol begins and ends as 'zz' is not known"),
    ],
)
def test_what_cannot_be(text: str, base: str | None, says: str) -> None:
    with pytest.raises(CaptureError) as caught:
        notes(text, base)
    assert says in str(caught.value)


def test_without_profiles_there_is_nothing_to_begin_from() -> None:
    with pytest.raises(CaptureError, match="there is no profile to begin from"):
        learn_text("771,1,2,,", ())


def test_grease_is_where_the_base_has_it() -> None:
    chrome = CATALOG.require("chrome", source="", key="")
    found = learn_text("771,4866-4865-49195,43-51-13-10-0,24-29,", SPECS, chrome).hello
    assert found.cipher_suites == (GREASE, 4866, 4865, 49195)
    types = [entry.type for entry in found.extensions]
    assert (types[0], types[-1]) == (GREASE, GREASE)
    assert types[1:-1] == [43, ExtensionType.COOKIE, 51, 13, 10, 0]
    assert found.numbers(ExtensionType.SUPPORTED_GROUPS) == (GREASE, 24, 29)
    assert found.numbers(ExtensionType.KEY_SHARE) == (GREASE, 29)
    assert not found.permute


suites = st.sampled_from((0x1301, 0x1302, 0x1304, 0xC02B, 0x002F, 0x00FF, 0x1234))
known = st.sampled_from((0, 5, 10, 11, 13, 16, 17, 18, 21, 23, 27, 28, 34, 35, 41, 42, 43, 45, 51))
others = st.sampled_from((17513, 17613, 65037, 65281, 51764, 4660, 50))
groups = st.lists(st.sampled_from((29, 23, 24, 4588, 25497, 256, 99)), min_size=1, max_size=4, unique=True)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(suites, min_size=1, max_size=5),
    st.lists(known | others, max_size=10, unique=True),
    groups,
    st.sampled_from([None, *(spec.name for spec in EXACT)]),
)
def test_any_ja3_becomes_a_hello_that_can_be_sent_or_a_capture_error(
    ciphers: list[int], extensions: list[int], listed: list[int], base: str | None
) -> None:
    parts = [
        ciphers,
        extensions,
        listed if 10 in extensions else [],
        [0] if 11 in extensions else [],
    ]
    text = ",".join(["771", *("-".join(map(str, part)) for part in parts)])
    try:
        found = learn_text(text, SPECS, None if base is None else CATALOG.find(base))
    except CaptureError:
        return
    check(found.hello)
    assert parse_hello(as_table(found.hello), "hello", "test") == found.hello
    seen = {text_of(hello, "JA3") for hello in hellos_of(found.hello, host=HOST.encode())}
    assert (seen == {text}) == found.exact
    if not found.exact:
        assert {21, 41, 42} & {*extensions, *read_extensions(found)}
