"""Two clients side by side: what is shown, and that showing agrees with the judge."""

from __future__ import annotations

import json
from itertools import product

import pytest

from polytls.fingerprint.diff import compare
from polytls.fingerprint.normal import NormalHello, difference, normalise
from polytls.wire.client_hello import parse_client_hello
from tests.capture.hellos import CHROME, FIREFOX, GOLDENS, OPENSSL, samples


def normal(hellos: list[bytes]) -> NormalHello:
    return normalise([parse_client_hello(hello) for hello in hellos])


def test_a_client_is_like_itself() -> None:
    found = compare("a", normal(CHROME), "b", normal(CHROME))
    assert found.same
    assert found.as_text(width=80) == "  a                  b\n\nno difference\n"
    everything = found.as_text(width=100, everything=True)
    assert "cipher suites\n" in everything
    assert "TLS_AES_128_GCM_SHA256" in everything


def test_lists_are_aligned_and_marked() -> None:
    found = compare("chrome", normal(CHROME), "firefox", normal(FIREFOX))
    text = found.as_text(width=120)
    lines = text.splitlines()
    assert lines[0].split() == ["chrome", "firefox"]
    suites = lines[lines.index("cipher suites") + 1 :]
    assert suites[0].split() == ["GREASE", "<"]
    assert suites[1].split() == ["TLS_AES_128_GCM_SHA256"] * 2
    assert suites[2].split() == [">", "TLS_CHACHA20_POLY1305_SHA256"]
    order = lines[lines.index("order of extensions") + 1]
    assert order.split() == ["permuted", "|", "fixed"]
    assert "padding" not in lines
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 120


def test_colour_marks_what_differs_and_changes_nothing_else() -> None:
    found = compare("chrome", normal(CHROME), "firefox", normal(FIREFOX))
    plain, colour = (found.as_text(width=120, colour=on) for on in (False, True))
    assert "\x1b[31mGREASE" in colour
    assert "\x1b[32mTLS_CHACHA20_POLY1305_SHA256\x1b[0m" in colour
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[0m"):
        colour = colour.replace(code, "")
    assert [line.rstrip() for line in colour.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("width", [1, 40, 80, 1000])
def test_cells_are_broken_to_any_width(width: int) -> None:
    text = compare("a" * 50, normal(CHROME), "b", normal(OPENSSL)).as_text(width=width, everything=True)
    assert max(map(len, text.splitlines())) <= max(width, 2 * 16 + 8)
    assert "".join(text.split()).count("a" * 10) >= 1


def test_json_holds_every_row() -> None:
    found = compare("chrome", normal(CHROME), "openssl", normal(OPENSSL))
    read = json.loads(json.dumps(found.as_dict()))
    assert (read["a"], read["b"], read["same"]) == ("chrome", "openssl", False)
    by_name = {section["what"]: section for section in read["sections"]}
    assert by_name["legacy version"] == {
        "what": "legacy version",
        "same": True,
        "rows": [{"a": "TLS 1.2", "b": "TLS 1.2", "same": True}],
    }
    assert {"a": "GREASE", "b": None, "same": False} in by_name["cipher suites"]["rows"]


def test_what_is_shown_and_what_is_judged_agree() -> None:
    names = ["chrome-131", "chrome-136", "firefox-135", "safari-18.0", "openssl-3.0", "curl-7.88", "java-17"]
    clients = {name: normal(samples(name)) for name in names if (GOLDENS / f"{name}.json").exists()}
    for (one, left), (other, right) in product(clients.items(), repeat=2):
        same = compare(one, left, other, right).same
        assert same == (not difference(left, right)), (one, other)
        assert same == (one == other)
