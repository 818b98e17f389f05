"""`[http2]`: every built-in's is its client's; what is written reads back; errors name their key."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytls.errors import ProfileError
from polytls.profiles.catalog import Catalog
from polytls.profiles.http2 import (
    GREASE_SETTING,
    H2,
    MAX_SETTINGS,
    MAX_U31,
    PSEUDO_HEADERS,
    FlightError,
    Http2,
    Priority,
    PriorityFrame,
    Setting,
    check,
)
from polytls.profiles.http2_learn import MAX_FRAMES, learn_http2
from polytls.profiles.http2_toml import as_table, as_toml, parse_http2
from polytls.profiles.show import as_toml as profile_as_toml
from tests.capture.hellos import SHARED_GOLDENS, WITHOUT_SHARED
from tests.golden.profiles import CLIENTS, FLIGHTS, capture, flight

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOG = Catalog.load({}, "none")
NAMES = sorted(path.stem for path in FLIGHTS.glob("*.json"))
FULL: dict[str, object] = {
    "settings": [{"HEADER_TABLE_SIZE": 65536}, "GREASE", {"0x1234": 7}, {"enable_push": 0}],
    "window_update": 15663105,
    "priority_frames": [{"stream": 3, "exclusive": False, "depends_on": 0, "weight": 201}],
    "stream": 15,
    "priority": {"exclusive": True, "depends_on": 13, "weight": 42},
    "pseudo_headers": [":method", ":path", ":authority", ":scheme"],
    "stream_window_update": 12451840,
}
LEAST: dict[str, object] = {"settings": [], "pseudo_headers": [":method", ":scheme", ":path"]}


def of(name: str) -> Http2 | None:
    return CATALOG.require(name, source="test", key="").http2


def parse(table: object, base: Http2 | None = None) -> Http2:
    return parse_http2(table, "profiles.x.http2", "f.toml", base)


# --- the built-ins ----------------------------------------------------------------------------------


def test_every_client_that_offers_http2_has_a_captured_flight_and_no_other() -> None:
    assert len(NAMES) > 50
    assert set(NAMES) <= {path.stem for path in CLIENTS.glob("*.json")}
    for spec in CATALOG.specs():
        assert (H2 in spec.alpn) == (spec.http2 is not None) == (spec.name in NAMES), spec.name


@pytest.mark.parametrize("name", NAMES)
def test_a_builtin_begins_http2_as_its_client_does(name: str) -> None:
    captured, ours = flight(name), of(name)
    assert captured is not None
    if capture(name)["imitation"] and name.startswith("firefox-"):
        # As the real one, which is the same in all but what its imitations never had right.
        assert ours == flight("firefox-esr-153")
        real = {"stream", "priority", "stream_window_update"}
        kept = {field for field in Http2.__dataclass_fields__ if field not in real}
        assert all(getattr(ours, field) == getattr(captured, field) for field in kept)
    else:
        assert ours == captured


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_text_form_is_ours(name: str) -> None:
    document = json.loads((FLIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    captured = flight(name)
    assert captured is not None
    assert document["name"] == name
    assert document["taken"] >= 3
    assert document["client"] == capture(name)["client"]
    assert captured.akamai == document["http2"]["akamai"]


def shared(name: str) -> dict[str, Any]:
    path = SHARED_GOLDENS / f"{name}.json"
    if not path.exists():
        pytest.skip(WITHOUT_SHARED)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_other_captures_of_the_same_clients_say_the_same() -> None:
    if not SHARED_GOLDENS.is_dir():
        pytest.skip(WITHOUT_SHARED)
    squashed = {"".join(filter(str.isalnum, name)): name for name in [*NAMES, "curl"]}
    compared = 0
    for path in sorted(SHARED_GOLDENS.glob("*.json")):
        name = squashed.get("".join(filter(str.isalnum, path.stem)))
        report = shared(path.stem).get("h2") if name else None
        if name and report:
            theirs = learn_http2([report]).http2
            ours = flight(name) or of(name)
            assert ours is not None
            # Those captures end with the request.
            assert theirs == replace(ours, stream_window_update=0)
            compared += 1
    assert compared >= 20


@pytest.mark.parametrize(
    ("browser", "name"),
    [
        ("chrome", "chrome-143-macos-arm64"),
        ("firefox", "firefox-145-macos-arm64"),
        ("safari", "safari-26.2-macos-arm64"),
    ],
)
def test_the_real_browsers(browser: str, name: str) -> None:
    seen = shared(f"real-{browser}")["http2"]
    ours = of(name)
    assert ours is not None
    assert ours.akamai == seen["akamai_fingerprint"]
    (headers,) = (frame for frame in seen["sent_frames"] if frame["frame_type"] == "HEADERS")
    assert headers["stream_id"] == ours.stream
    theirs = headers.get("priority")
    assert (theirs is None) == (ours.priority is None)
    if theirs is not None:
        assert ours.priority == Priority(bool(theirs["exclusive"]), theirs["depends_on"], theirs["weight"])


# --- the table --------------------------------------------------------------------------------------


def test_a_whole_table() -> None:
    read = parse(FULL)
    assert read == Http2(
        settings=(Setting(1, 65536), GREASE_SETTING, Setting(0x1234, 7), Setting(2, 0)),
        pseudo_headers=(":method", ":path", ":authority", ":scheme"),
        window_update=15663105,
        priority_frames=(PriorityFrame(3, Priority(exclusive=False, depends_on=0, weight=201)),),
        stream=15,
        priority=Priority(exclusive=True, depends_on=13, weight=42),
        stream_window_update=12451840,
    )
    assert read.akamai == "1:65536;4660:7;2:0|15663105|3:0:0:201|m,p,a,s"
    assert parse(tomllib.loads(as_toml(read))) == read
    assert tomllib.loads(as_toml(read)) == as_table(read)
    assert parse(LEAST) == Http2((), (":method", ":scheme", ":path"))
    assert parse(LEAST).akamai == "|00|0|m,s,p"


def test_over_a_base_each_key_replaces_its_own() -> None:
    base = parse(FULL)
    assert parse({}, base) == base
    assert parse({"priority": False}, base) == replace(base, priority=None)
    assert parse({"settings": []}, base) == replace(base, settings=())


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (1, "http2: is an integer; allowed: a table"),
        ({}, "http2.settings: is left out; allowed: a table with settings, pseudo_headers"),
        ({**LEAST, "setting": []}, 'http2.setting: unknown key (did you mean "settings"?)'),
        ({**LEAST, "settings": {}}, "http2.settings: is a table; allowed: an array of settings"),
        ({**LEAST, "settings": ["x"]}, 'http2.settings: holds "x"; allowed: { HEADER'),
        ({**LEAST, "settings": [{}]}, "http2.settings: holds a table; allowed"),
        (
            {**LEAST, "settings": [{"ENABLE_PUSHES": 0}]},
            '"ENABLE_PUSHES": unknown setting (did you mean "ENABLE_PUSH"?)',
        ),
        ({**LEAST, "settings": [{"0x3a4a": 0}]}, 'a reserved identifier; allowed: "GREASE"'),
        ({**LEAST, "settings": [{"ENABLE_PUSH": 2}]}, "ENABLE_PUSH is 2; allowed: 0 to 1"),
        ({**LEAST, "settings": [{"MAX_FRAME_SIZE": 1}]}, "MAX_FRAME_SIZE is 1; allowed: 16384 to"),
        ({**LEAST, "settings": [{"0x10": 1 << 32}]}, '"0x10" is 4294967296; allowed: 0 to 4294967295'),
        ({**LEAST, "settings": ["GREASE"] * (MAX_SETTINGS + 1)}, "settings: has 65 settings"),
        ({**LEAST, "window_update": -1}, "window_update: is -1; allowed: 0 to"),
        ({**LEAST, "window_update": MAX_U31}, "window_update: is 2147483647; allowed: 0 to 2147418112"),
        ({**LEAST, "stream": 2}, "stream: is 2; allowed: odd numbers"),
        ({**LEAST, "priority": True}, "priority: is a boolean; allowed: a table of exclusive"),
        (
            {**LEAST, "priority": {"exclusive": 1, "depends_on": 0, "weight": 1}},
            "priority: exclusive is an integer; allowed: true, false",
        ),
        (
            {**LEAST, "priority": {"exclusive": True, "depends_on": 0, "weight": 0}},
            "priority: weight is 0; allowed: 1 to 256",
        ),
        (
            {**LEAST, "priority": {"exclusive": True, "depends_on": 1, "weight": 257}},
            "priority: weight is 257; allowed: 1 to 256",
        ),
        (
            {**LEAST, "priority": {"exclusive": True, "depends_on": 1, "weight": 1}},
            "priority: stream 1 depends on itself",
        ),
        ({**LEAST, "priority_frames": [{"stream": 1}]}, "leaves out exclusive, depends_on, weight"),
        ({**LEAST, "pseudo_headers": [":method"]}, "pseudo_headers: names an unknown field, one twice"),
        ({**LEAST, "pseudo_headers": ["method"]}, 'pseudo_headers: holds "method"; allowed: :method'),
        ({**LEAST, "pseudo_headers": [":path", *PSEUDO_HEADERS]}, "one twice"),
    ],
)
def test_errors(table: object, sentence: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse(table)
    assert str(caught.value).startswith("f.toml: profiles.x.http2")
    assert sentence in str(caught.value)


whole = st.integers(min_value=-1, max_value=1 << 33)
values = st.recursive(
    st.none() | st.booleans() | whole | st.text(max_size=5) | st.sampled_from(PSEUDO_HEADERS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("stream", "exclusive", "depends_on", "weight", "ENABLE_PUSH", "0x12", "x")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys([*FULL, "x"], values) | {"settings": st.just(FULL["settings"])}
    )
)
def test_any_table_is_a_flight_or_a_profile_error(table: dict[str, object]) -> None:
    try:
        read = parse(table, parse(FULL))
    except ProfileError:
        return
    check(read)
    assert parse(tomllib.loads(as_toml(read))) == read


# --- learning ---------------------------------------------------------------------------------------

FRAMES: list[dict[str, object]] = [
    {"type": "SETTINGS", "flags": 0, "stream": 0, "settings": [[1, 65536], [0x3A7A, 99]]},
    {"type": "WINDOW_UPDATE", "flags": 0, "stream": 0, "increment": 10},
    {
        "type": "PRIORITY",
        "flags": 0,
        "stream": 3,
        "priority": {"exclusive": 0, "depends_on": 0, "weight": 201},
    },
    {"type": "HEADERS", "flags": 5, "stream": 15, "priority": None},
    {"type": "WINDOW_UPDATE", "flags": 0, "stream": 15, "increment": 20},
]
NAMES_SENT = [":method", ":path", ":authority", ":scheme", "user-agent"]


def learned(*frames: object, names: object = NAMES_SENT) -> Http2:
    return learn_http2([{"frames": list(frames), "pseudo_headers": names}]).http2


def test_every_frame_is_learned() -> None:
    assert learned(*FRAMES) == Http2(
        settings=(Setting(1, 65536), GREASE_SETTING),
        pseudo_headers=(":method", ":path", ":authority", ":scheme"),
        window_update=10,
        priority_frames=(PriorityFrame(3, Priority(exclusive=False, depends_on=0, weight=201)),),
        stream=15,
        stream_window_update=20,
    )


def test_what_a_profile_cannot_say_is_told() -> None:
    settings, window, priority, headers, _ = FRAMES
    odd = {"type": "PING", "flags": 0, "stream": 0}
    frames = [settings, odd, {"type": "0xfe\x1b", "stream": 0}, settings, priority, window, headers]
    found = learn_http2([{"frames": frames, "pseudo_headers": NAMES_SENT}])
    assert found.notes == (
        "of its HTTP/2 first flight PING on stream 0 was left out",
        "of its HTTP/2 first flight a frame of an unknown type on stream 0 was left out",
        "of its HTTP/2 first flight SETTINGS on stream 0 was left out",
        "the frames of its HTTP/2 first flight come in another order than profiles have",
    )


def test_of_different_flights_the_first_is_taken() -> None:
    first, second = ({"frames": FRAMES[at:], "pseudo_headers": NAMES_SENT} for at in (0, 0))
    second["frames"] = [*FRAMES[:3], {**FRAMES[3], "stream": 17}]
    found = learn_http2([first, second])
    assert found.http2 == learned(*FRAMES)
    assert found.notes == (
        "HTTP/2 first flights differ in stream, stream_window_update: the first one was taken",
    )


@pytest.mark.parametrize(
    ("report", "key"),
    [
        (None, "http2"),
        ({"frames": {}}, "http2"),
        ({"frames": FRAMES[:1] * (MAX_FRAMES + 1)}, "http2"),
        ({"frames": FRAMES[1:], "pseudo_headers": NAMES_SENT}, "http2"),
        ({"frames": FRAMES[:3], "pseudo_headers": NAMES_SENT}, "http2"),
        ({"frames": FRAMES, "pseudo_headers": [1]}, "pseudo_headers"),
        ({"frames": FRAMES, "pseudo_headers": [":method"]}, "pseudo_headers"),
        ({"frames": [{**FRAMES[0], "settings": [[1]]}]}, "settings"),
        ({"frames": [{**FRAMES[0], "settings": [[1, -1]]}]}, "settings"),
        ({"frames": [{**FRAMES[0], "stream": "0"}]}, "stream"),
        ({"frames": [{**FRAMES[3], "priority": 1}]}, "priority"),
        ({"frames": ["SETTINGS"]}, "http2"),
    ],
)
def test_what_is_no_flight(report: object, key: str) -> None:
    with pytest.raises(FlightError) as caught:
        learn_http2([report])
    assert caught.value.key == key


frames = st.fixed_dictionaries(
    {"type": st.sampled_from(("SETTINGS", "WINDOW_UPDATE", "PRIORITY", "HEADERS", "PING", ""))},
    optional={
        "stream": whole,
        "increment": whole,
        "settings": st.lists(st.lists(whole, max_size=3), max_size=3) | values,
        "priority": values,
    },
)


@given(
    st.lists(frames | st.sampled_from(FRAMES) | values, max_size=6),
    st.permutations(PSEUDO_HEADERS) | values,
)
def test_any_report_is_a_flight_or_a_flight_error(report: list[object], names: object) -> None:
    try:
        found = learned(*report, names=names)
    except FlightError:
        return
    check(found)
    assert parse(as_table(found)) == found


# --- profiles ---------------------------------------------------------------------------------------


def configured(**table: object) -> Http2 | None:
    return Catalog.load({"lab": table}, "f.toml").require("lab", source="test", key="").http2


def test_it_is_inherited_edited_and_lost_with_h2() -> None:
    chrome = of("chrome")
    assert chrome is not None
    assert configured(base="chrome") == chrome
    assert configured(base="chrome", grease=False, http2={"window_update": 1}) == replace(
        chrome, window_update=1
    )
    assert configured(base="chrome", alpn_protos=["http/1.1"]) is None
    assert configured(alpn_protos=["h2", "http/1.1"]) is None  # `default` has none to give
    assert configured(alpn_protos=["h2"], http2=LEAST) == parse(LEAST)


@pytest.mark.parametrize("base", ["chrome", "default"])
def test_without_h2_it_has_no_meaning(base: str) -> None:
    with pytest.raises(ProfileError, match=r"profiles\.lab\.http2: has no meaning for a profile that does"):
        configured(base=base, alpn_protos=["http/1.1"], http2=LEAST)


def test_show_says_what_becomes_of_http2() -> None:
    kept = "# Relayed HTTP/2 keeps the first flight of the client in front of the proxy.\n"
    text = profile_as_toml(CATALOG.require("firefox", source="test", key=""))
    akamai = "1:65536;2:0;4:131072;5:16384|12517377|0|m,p,a,s"
    assert f"{kept}# This is what the profile's own would be: {akamai}\n[profiles.firefox-155.http2]" in text
    unknown = Catalog.load({"lab": {"alpn_protos": ["h2"]}}, "f").require("lab", source="", key="")
    assert "# How this client begins HTTP/2 is not known. Relayed" in profile_as_toml(unknown)
    assert "HTTP/2" not in profile_as_toml(CATALOG.require("default", source="test", key=""))
