from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.events import TraceParent
from polytls.wire.trace_context import MAX_TRACEPARENT_BYTES, parse_traceparent, trace_parent

# The example of the specification (§3.2.2.4).
TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
VALID = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_example_of_the_specification() -> None:
    assert parse_traceparent(VALID) == TraceParent(TRACE, SPAN, True)
    assert parse_traceparent(VALID[:-2] + b"00") == TraceParent(TRACE, SPAN, False)


def test_other_flags_do_not_matter() -> None:
    assert parse_traceparent(VALID[:-2] + b"fe") == TraceParent(TRACE, SPAN, False)
    assert parse_traceparent(VALID[:-2] + b"ff") == TraceParent(TRACE, SPAN, True)


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(b"cc" + VALID[2:]) == TraceParent(TRACE, SPAN, True)
    assert parse_traceparent(b"cc" + VALID[2:] + b"-what-the-future-will-be") == TraceParent(
        TRACE, SPAN, True
    )


@pytest.mark.parametrize(
    "value",
    [
        b"",
        VALID[:-1],
        VALID + b"0",
        VALID + b"-",
        VALID + b"-00",
        b"cc" + VALID[2:] + b".what",
        b"ff" + VALID[2:],
        VALID.upper(),
        VALID.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32),
        VALID.replace(b"00f067aa0ba902b7", b"0" * 16),
        VALID.replace(b"-", b"_"),
        VALID.replace(b"4", "\u0664".encode()),
        VALID + b"\n",
        b" " + VALID,
        b"cc" + VALID[2:] + b"-" + b"x" * MAX_TRACEPARENT_BYTES,
    ],
)
def test_anything_else_is_as_if_it_were_not_there(value: bytes) -> None:
    assert parse_traceparent(value) is None


def test_the_length_is_bounded_to_the_byte() -> None:
    longest = b"cc" + VALID[2:] + b"-" + b"x" * (MAX_TRACEPARENT_BYTES - len(VALID) - 1)
    assert parse_traceparent(longest) is not None
    assert parse_traceparent(longest + b"x") is None


def test_the_name_is_found_in_any_case_and_two_values_are_none() -> None:
    assert trace_parent(((b"Host", b"x"), (b"TraceParent", VALID))) == TraceParent(TRACE, SPAN, True)
    assert trace_parent(((b"traceparent", VALID), (b"Traceparent", VALID))) is not None
    assert trace_parent(((b"traceparent", VALID), (b"traceparent", VALID[:-2] + b"00"))) is None
    assert trace_parent(((b"tracestate", VALID),)) is None
    assert trace_parent(()) is None


@given(st.one_of(st.binary(max_size=600), st.from_regex(rb"[0-9a-f-]{50,60}", fullmatch=True)))
def test_it_never_raises_and_what_it_reads_is_valid(value: bytes) -> None:
    parent = parse_traceparent(value)
    if parent is not None:
        assert 0 < parent.trace_id < 1 << 128
        assert 0 < parent.span_id < 1 << 64


@given(
    st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, 255), st.integers(0, 254)
)
def test_what_is_written_is_read(trace: int, span: int, flags: int, version: int) -> None:
    value = f"{version:02x}-{trace:032x}-{span:016x}-{flags:02x}".encode()
    assert parse_traceparent(value) == TraceParent(trace, span, bool(flags & 1))
