"""Telling clients apart, by goldens of many."""

from __future__ import annotations

from polytls.capture.clients import clients_of
from polytls.capture.records import read_hellos
from tests.capture.hellos import CHROME, FIREFOX, GOLDENS, OPENSSL, samples


def test_hellos_are_put_together_by_client() -> None:
    mixed = [hello for group in zip(CHROME, FIREFOX, OPENSSL, strict=True) for hello in group]
    clients = clients_of(read_hellos(b"".join(mixed)))
    assert [[one.raw for one in client.captured] for client in clients] == [CHROME, FIREFOX, OPENSSL]
    assert str(clients[0]) == "t13d1516h2_8daaf6152771_02713d6af862 (3 hellos for golden.test)"


def test_every_golden_is_one_client() -> None:
    for path in sorted(GOLDENS.glob("*.json")):
        (client,) = clients_of(read_hellos(path.read_bytes()))
        assert [one.raw for one in client.captured] == samples(path.stem), path.stem


def test_an_answer_to_a_retry_is_no_first_hello() -> None:
    twice = OPENSSL[0] + bytes.fromhex("140303000101") + OPENSSL[0]
    (client,) = clients_of(read_hellos(twice))
    assert len(client.captured) == 1
    assert len(clients_of(read_hellos(twice + OPENSSL[1]))[0].captured) == 2
