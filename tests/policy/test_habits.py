"""What is expected of a client's next hello."""

from __future__ import annotations

from polytls.policy.habits import MAX_AGENT_BYTES, MAX_ALPN_BYTES, MAX_CLIENTS, Habit, Habits

BROWSER = Habit(True, (b"h2", b"http/1.1"), True)
TOOL = Habit(False, None, False)


def test_the_last_hello_of_each_client_is_expected() -> None:
    habits = Habits()
    assert habits.find(b"browser", is_ip=False) is None
    habits.learn(b"browser", BROWSER, is_ip=False)
    habits.learn(b"tool", TOOL, is_ip=False)
    assert habits.find(b"browser", is_ip=False) == BROWSER
    assert habits.find(b"tool", is_ip=False) == TOOL
    habits.learn(b"browser", TOOL, is_ip=False)
    assert habits.find(b"browser", is_ip=False) == TOOL


def test_an_address_is_begun_with_in_another_way_than_a_name() -> None:
    habits = Habits()
    habits.learn(b"", BROWSER, is_ip=False)
    assert habits.find(b"", is_ip=True) is None
    habits.learn(b"", TOOL, is_ip=True)
    assert (habits.find(b"", is_ip=False), habits.find(b"", is_ip=True)) == (BROWSER, TOOL)


def test_whoever_makes_up_names_pushes_out_the_oldest() -> None:
    habits = Habits()
    for number in range(MAX_CLIENTS + 10):
        habits.learn(b"%d" % number, BROWSER, is_ip=False)
        assert len(habits) <= MAX_CLIENTS
    assert habits.find(b"9", is_ip=False) is None
    assert habits.find(b"10", is_ip=False) == BROWSER


def test_a_name_that_is_too_long_is_like_none() -> None:
    habits = Habits()
    habits.learn(b"a" * (MAX_AGENT_BYTES + 1), BROWSER, is_ip=False)
    assert habits.find(b"", is_ip=False) == BROWSER
    assert habits.find(b"a" * MAX_AGENT_BYTES, is_ip=False) is None


def test_a_list_that_nobody_means_is_not_kept() -> None:
    habits = Habits()
    habits.learn(b"", BROWSER, is_ip=False)
    habits.learn(b"", Habit(True, (b"x" * 255,) * (MAX_ALPN_BYTES // 256 + 1), True), is_ip=False)
    assert habits.find(b"", is_ip=False) is None
