"""Which hosts get which configs."""

from __future__ import annotations

import pytest

from polytls.policy.ech import EchConfigs

CONFIGS = EchConfigs(
    [
        (("a.test", "*.b.test"), b"1"),
        (("x.b.test", "*.y.b.test"), b"2"),
        (("a.test", "*.b.test", "c.test"), b"3"),
    ]
)


@pytest.mark.parametrize(
    ("host", "configs"),
    [
        ("a.test", b"1"),
        ("b.test", b""),
        ("any.b.test", b"1"),
        ("deep.any.b.test", b"1"),
        ("x.b.test", b"2"),
        ("z.x.b.test", b"1"),
        ("z.y.b.test", b"2"),
        ("c.test", b"3"),
        ("z.c.test", b""),
        ("notb.test", b""),
        ("test", b""),
        ("192.0.2.1", b""),
        ("", b""),
    ],
)
def test_the_nearest_rule(host: str, configs: bytes) -> None:
    assert CONFIGS.find(host) == configs


def test_without_rules_there_is_nothing() -> None:
    assert EchConfigs().find("a.test") == b""
