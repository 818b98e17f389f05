"""The tool that takes the captures: a real client against each of the recorder's answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.wire.iana import ExtensionType
from tests.golden.capture import PAIRS, Bench, capture, document
from tests.golden.drivers import Visit, clients, profile_name
from tests.golden.recorder import HOST, Answer, Recorder, record_types, sent_hellos
from tests.golden.shape import describe
from tests.peers.certificates import Authority

_CURL = json.loads((Path(__file__).parent / "clients" / "curl-7.88.json").read_text("utf-8"))
FIRST, SECOND = (bytes.fromhex(_CURL["retry"][0][side]) for side in ("first", "second"))
CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")
APPLICATION_DATA = bytes.fromhex("17030300020000")
STREAM = FIRST + CHANGE_CIPHER_SPEC + SECOND + APPLICATION_DATA


def test_python_is_captured_in_every_way(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    bench = Bench(authority.pem, authority.issue(HOST), tmp_path)
    client = next(client for client in clients() if client.name.startswith("python-"))
    taken = capture(client, bench)
    assert len(taken.samples) == client.samples
    assert (len(taken.retry), len(taken.cookie), len(taken.resumed)) == (PAIRS, PAIRS, 1)
    assert taken.retry_group == "secp384r1"
    assert taken.cookie_group is None
    assert taken.cookie[0][1].parsed.extension(ExtensionType.COOKIE)
    assert taken.resumed[0][1].parsed.extension_types[-1] == ExtensionType.PRE_SHARED_KEY
    assert json.loads(json.dumps(document(client, taken)))["taken"] == client.samples


@pytest.mark.parametrize("library", ["gnutls-", "java-", "openssl-"])
def test_where_a_real_clients_change_cipher_spec_is_after_a_retry(library: str, tmp_path: Path) -> None:
    sent = real(library, Answer.RETRY, "secp384r1", tmp_path)
    plain = [22, 20, 22, 23] if library == "openssl-" else [22, 22, 20, 23]
    assert record_types(sent)[: len(plain)] == plain


def test_real_gnutls_gives_up_when_asked_for_nothing_but_a_cookie(tmp_path: Path) -> None:
    """Its profiles answer, as RFC 8446 §4.1.4 wants it: this is what is not exact in them."""
    assert set(record_types(real("gnutls-", Answer.COOKIE, None, tmp_path))[1:]) <= {21}  # an alert
    assert record_types(real("gnutls-", Answer.COOKIE, "secp384r1", tmp_path))[:2] == [22, 22]


def real(library: str, answer: Answer, group: str | None, directory: Path) -> bytes:
    """All that an installed client sends on its first connection."""
    found = [client for client in clients() if client.name.startswith(library)]
    if not found:
        pytest.skip(f"no client {library}* is installed")
    authority = Authority(directory)
    with Recorder(answer, authority.issue(HOST), group) as recorder:
        wait = lambda seconds: recorder.wait(bool, seconds)  # noqa: E731
        found[0].visit(Visit(recorder.port, 1, authority.pem, directory, wait))
        return recorder.sent[0]


@given(st.integers(0, len(STREAM)))
def test_what_has_not_arrived_is_not_a_hello(size: int) -> None:
    whole = [FIRST, SECOND]
    found = [hello.records for hello in sent_hellos(STREAM[:size])]
    assert found == whole[: (size >= len(FIRST)) + (size >= len(STREAM) - len(APPLICATION_DATA))]


@given(st.integers(1, 600))
def test_a_hello_in_many_records_is_one(size: int) -> None:
    message = FIRST[5:]
    parts = [message[start : start + size] for start in range(0, len(message), size)]
    records = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)
    first, second = sent_hellos(records + CHANGE_CIPHER_SPEC + SECOND)
    assert first.records == records
    assert (first.after_change_cipher_spec, second.after_change_cipher_spec) == (False, True)
    assert describe([records])[0]["bodies"] == describe([FIRST])[0]["bodies"]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("chrome133a", "chrome-133"),
        ("chrome99_android", "chrome-99-android"),
        ("chrome151_macos", "chrome-151-macos"),
        ("safari2601", "safari-26.0.1"),
        ("safari184_ios", "safari-18.4-ios"),
        ("tor145", "tor-14.5"),
        ("safari15_3", None),
        ("chrome", None),
        ("chrome_android", None),
    ],
)
def test_names_follow_the_profiles_scheme(target: str, name: str | None) -> None:
    assert profile_name(target) == name
