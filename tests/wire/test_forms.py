from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.wire import iana
from polytls.wire.client_hello import parse_client_hello
from polytls.wire.forms import has_form
from tests.golden.known import NAMES
from tests.golden.profiles import samples


@pytest.mark.parametrize("name", NAMES)
def test_every_body_that_real_clients_send_has_its_form(name: str) -> None:
    for sample in samples(name):
        for item in parse_client_hello(sample).extensions:
            if not iana.is_grease(item.type):
                assert has_form(item.type, item.body), (item.type, item.body.hex())


# Of each known type a body that is right, and what makes it wrong.
GOOD = {
    1: "04",
    5: "0100000000",
    10: "0002001d",
    11: "0100",
    13: "00020403",
    14: "0002000100",
    16: "0003026832",
    18: "",
    19: "0100",
    20: "0102",
    22: "",
    23: "",
    27: "020002",
    28: "0040",
    34: "00020403",
    43: "020304",
    45: "0101",
    49: "",
    50: "00020403",
    51: "0005001d00012a",
    13172: "",
    17513: "0003026832",
    17613: "0003026832",
}
WRONG = [
    (1, "00"),
    (1, "05"),
    (5, ""),
    (5, "01000200000000"),
    (5, "0100000005"),
    (10, "0000"),
    (10, "000100"),
    (11, "00"),
    (14, "000000"),
    (16, "0000"),
    (16, "000100"),
    (16, "0003036832"),
    (27, "00"),
    (28, "003f"),
    (43, "00"),
    (45, "00"),
    (51, "0004001d0000"),
    (51, "0005001d00022a"),
]


@pytest.mark.parametrize("number", GOOD)
def test_a_good_one_and_what_is_cut_short_or_goes_on(number: int) -> None:
    body = bytes.fromhex(GOOD[number])
    assert has_form(number, body)
    assert not has_form(number, body + b"\0")
    for size in range(len(body)):
        assert not has_form(number, body[:size])


@pytest.mark.parametrize(("number", "body"), WRONG)
def test_wrong_ones(number: int, body: str) -> None:
    assert not has_form(number, bytes.fromhex(body))


def test_other_kinds_of_status_have_forms_of_their_own() -> None:
    assert has_form(5, b"\2what it likes")


def test_no_key_share_is_a_request_for_a_retry() -> None:
    """RFC 8446 §4.2.8."""
    assert has_form(51, b"\0\0")


@given(st.integers(0, 65535), st.binary(max_size=40))
def test_any_bytes_have_it_or_not(number: int, body: bytes) -> None:
    assert has_form(number, body) or number in GOOD
