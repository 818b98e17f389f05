"""Fingerprint texts read back: what is told, what is refused and why, and that nothing else can happen."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.texts import MAX_ITEMS, MAX_TEXT_CHARS, TextError, Told, looks_like_text, read_text
from polytls.wire.client_hello import ClientHello, parse_client_hello
from polytls.wire.iana import is_grease
from tests.capture.hellos import CHROME, FIREFOX, OPENSSL
from tests.golden.profiles import CLIENTS, samples

NAMES = sorted(path.stem for path in CLIENTS.glob("*.json"))
CHROME_JA4_R = (
    "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
    "0005,000a,000b,000d,0012,0017,001b,0023,002b,002d,0033,4469,fe0d,ff01_"
    "0403,0804,0401,0503,0805,0501,0806,0601"
)
FIREFOX_JA3 = ja3(parse_client_hello(FIREFOX[0])).ja3


def plain(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if not is_grease(value))


def hello(name: str) -> ClientHello:
    return parse_client_hello(samples(name)[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_client_is_read_back_from_its_texts(name: str) -> None:
    sent = hello(name)
    forms = ja4(sent)
    ciphers, extensions = plain(sent.cipher_suites), plain(sent.extension_types)
    told = read_text(ja3(sent).ja3)
    assert told == Told(
        "JA3",
        ja3(sent).ja3,
        True,
        ciphers,
        extensions,
        plain(sent.supported_groups),
        tuple(sent.point_formats),
    )
    schemes = plain(sent.signature_algorithms)
    ordered = read_text(f"  {forms.ja4_ro}\n")
    assert (ordered.form, ordered.text, ordered.ordered) == ("JA4_ro", forms.ja4_ro, True)
    assert (ordered.cipher_suites, ordered.extensions) == (ciphers, extensions)
    assert ordered.signature_algorithms == schemes
    by_number = read_text(forms.ja4_r)
    assert (by_number.form, by_number.ordered) == ("JA4_r", False)
    assert by_number.cipher_suites == tuple(sorted(ciphers))
    assert sorted(by_number.extensions) == sorted(extensions)
    assert by_number.version == 0x0304
    assert by_number.alpn == (forms.ja4[8:10] if sent.alpn else None)


def test_the_two_forms_of_ja4_are_told_apart() -> None:
    nothing = "t12i010200_002f_000a,0017"
    assert read_text(nothing).form == "JA4_r"
    assert read_text("t12i020200_0035,002f_000a,0017").form == "JA4_ro"
    assert read_text("t12d010200_002f_000a").form == "JA4_r"
    assert read_text("t12d010200_002f_0000,000a").form == "JA4_ro"
    assert read_text("t12d010200_002f_000a,0000").extensions == (10, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cd08e31494f9531f560d64c695473da9", "a hash, and tells nothing: the JA3 text"),
        ("t13d1516h2_8daaf6152771_02713d6af862", "a hash, and tells nothing: the raw form"),
        ("771,,0,,", "names no cipher suite"),
        ("771,1,2,3", "has five parts, separated by commas; this has 4"),
        ("771,1,2,3,4,5", "this has 6"),
        ("769,1,,,", "it says version 769; the engine sends 771"),
        ("771,1-,,,", "'' is no cipher suite"),
        ("771,01,,,", "'01' is no cipher suite"),
        ("771,65536,,,", "'65536' is no cipher suite"),
        ("771,1,11,,256", "'256' is no point format"),
        ("771,2570,,,", "'2570' is a GREASE value"),
        ("771,1,10,,", "it has no groups"),
        ("771,1,,29,", "no extension 10 for its groups"),
        ("771,1,11,,", "it has no point formats"),
        ("771,1,0-0,,", "names an extension twice"),
        ("771,1,44,,", "answers a HelloRetryRequest"),
        ("771," + "-".join(["1"] * (MAX_ITEMS + 1)) + ",,,", "513 items in one list"),
        ("771," + "1" * MAX_TEXT_CHARS, "characters; at most"),
        ("q13d1516h3_002f_000a", "it is of QUIC or DTLS"),
        ("ts3d010100_002f_0000", "it says version s3; the engine offers 10 to 13"),
        ("t99d010200_002f_000a", "it says version 99"),
        ("t12d0101\x1b0_002f_000a", "its first part is not that of a JA4"),
        ("t12d010200_002f", "three or four parts, separated by underscores; this has 2"),
        ("t12d010200_002f_000a_0403_", "this has 5"),
        ("t12d010200_002f_000a_", "an underscore and no signature algorithms"),
        ("t12d020200_002f_000a", "says 02 cipher suites, and there are 1"),
        ("t12d010300_002f_000a", "says 3 extensions, and there are 2"),
        ("t12d010200_002F_000a", "'002F' is no number"),
        ("t12d010200_2f_000a", "'2f' is no number"),
        ("t12d010200_0a0a_000a", "'0a0a' is a GREASE value"),
        ("t12d010200_002f_000d", "signature algorithms or their extension, 000d, but not both"),
        ("t12d010200_002f_000a_0403", "but not both"),
        ("t13d010200_002f_000a", "TLS 1.3 without supported_versions"),
        ("t12i010200_002f_0000,000a", "disagree about server_name"),
        ("t12d0202h2_0035,002f_", "are not sorted, and lack server_name"),
        ("hello", "is no JA3 text"),
        ("", "is no JA3 text"),
    ],
)
def test_what_is_refused_and_why(text: str, says: str) -> None:
    with pytest.raises(TextError) as caught:
        read_text(text)
    said = str(caught.value).replace("says 2 cipher", "says 02 cipher")
    assert says in said, said
    assert said.isprintable()


@pytest.mark.parametrize("count", [MAX_ITEMS - 1, MAX_ITEMS])
def test_lists_up_to_the_limit_are_read(count: int) -> None:
    assert len(read_text("771," + "-".join(["1"] * count) + ",,,").cipher_suites) == count


def test_more_than_99_count_as_99() -> None:
    suites = ",".join(f"{number:04x}" for number in range(0x60, 0x60 + 120))
    assert len(read_text(f"t12d990100_{suites}_").cipher_suites) == 120


def test_what_looks_like_a_text() -> None:
    for text in (ja3(hello("curl-7.88")).ja3, CHROME_JA4_R, "771,", "0" * 32, f" {CHROME_JA4_R}\n"):
        assert looks_like_text(text)
    for records in (CHROME, FIREFOX, OPENSSL):
        assert not looks_like_text(records[0].hex())
    for other in ("", "handshake.pcap", "1.pcap", "771", '{"hello": ""}', "chrome-131", "a,b"):
        assert not looks_like_text(other)


numbers = st.integers(min_value=0, max_value=70_000)
ja3_like = st.builds(
    lambda version, lists: ",".join([str(version), *("-".join(map(str, one)) for one in lists)]),
    st.just(771) | numbers,
    st.lists(st.lists(numbers | st.integers(0, 60), max_size=6), min_size=3, max_size=5),
)
ja4_like = st.builds(
    lambda a, lists: "_".join([a, *(",".join(f"{n:04x}" for n in one) for one in lists)]),
    st.from_regex(r"[tqd](1[0-3]|s2)[di]0[0-6]0[0-6](h2|00|..)", fullmatch=True),
    st.lists(st.lists(st.integers(0, 60) | numbers, max_size=6), min_size=1, max_size=4),
)


@given(st.text(max_size=60) | ja3_like | ja4_like)
def test_any_text_is_told_or_a_text_error(text: str) -> None:
    try:
        told = read_text(text)
    except TextError:
        return
    assert looks_like_text(text)
    assert told.text == text.strip()
    assert told.cipher_suites
    assert len(set(told.extensions)) == len(told.extensions)


@given(st.data())
def test_any_change_of_a_good_text_is_told_or_a_text_error(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([CHROME_JA4_R, FIREFOX_JA3]))
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.text(alphabet="0123456789abcdef,-_tqdih\x00\u0663", max_size=3))
    changed = text[:at] + put + text[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(TextError):
        read_text(changed)
