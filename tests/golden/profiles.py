"""Writes the exact built-in profiles from the captures: python -m tests.golden.profiles [--check].

Theory of operation
-------------------
Each capture in `clients/` becomes a profile of its name, with the HTTP/2 first flight in `http2/` where the
client speaks it. The tables here say what it is called besides, and
in what the real client is known to differ from the capture. `learn` makes the hello, the known differences
are worked in, and the file is written with both said in its head. `polytls/profiles/index.py` is written from
the same list.

The files are never edited by hand: a test holds them equal to what is written here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polytls.profiles.exact import Ech, ExactHello
from polytls.profiles.exact_toml import as_toml, toml
from polytls.profiles.http2 import Http2, Priority
from polytls.profiles.http2_learn import learn_http2
from polytls.profiles.http2_toml import as_toml as http2_as_toml
from polytls.profiles.learn import learn
from polytls.wire.iana import ExtensionType

CLIENTS = Path(__file__).parent / "clients"
FLIGHTS = Path(__file__).parent / "http2"
PROFILES = Path(__file__).parents[2] / "polytls" / "profiles"
BY_KNOBS = {"default": ()}
"""Built-ins that are written by hand, with their aliases."""

Change = Callable[[ExactHello], ExactHello]


@dataclass(frozen=True)
class Known:
    """In what the real client differs from the capture, as a change and in words (a line each); `why` is the
    profile's ``unlike_capture``."""

    change: Change
    words: tuple[str, ...]
    why: str
    http2: Callable[[Http2], Http2] = lambda flight: flight


@dataclass(frozen=True)
class Build:
    """One built-in profile. `name` is that of its capture too."""

    name: str
    description: str
    aliases: tuple[str, ...]
    known: Known | None
    remarks: tuple[str, ...]


def _nss(hello: ExactHello) -> ExactHello:
    """Real Firefox, 145 and 153: one X25519 key in both shares, ECH GREASE of NSS's own shape."""
    ech = Ech(aeads=(1, 3), payloads=(239,), psk_step=32)
    entries = (
        replace(entry, body=ech) if entry.type == ExtensionType.ENCRYPTED_CLIENT_HELLO else entry
        for entry in hello.extensions
    )
    return replace(hello, extensions=tuple(entries), reuse_x25519=True)


def _real_firefox_http2(flight: Http2) -> Http2:
    """Real Firefox, 145 and 153: stream 3, weight 42; 153 with a window update of the stream as well."""
    return replace(
        flight,
        stream=3,
        priority=Priority(exclusive=False, depends_on=0, weight=42),
        stream_window_update=REAL_FIREFOX_STREAM_WINDOW,
    )


REAL_FIREFOX_STREAM_WINDOW = 12_451_840


FIREFOX = Known(
    _nss,
    (
        "As real Firefox (145 and 153 were looked at), and not as the capture:",
        "  - the X25519 key share is the key inside the hybrid one;",
        "  - the payload of GREASE ECH has 239 bytes, its AEAD is AES-128-GCM or ChaCha20Poly1305;",
        "    with a PSK it grows by the length of pre_shared_key, rounded up to 32 bytes;",
        "  - session_ticket is left out beside a PSK, and a cookie is returned;",
        "  - the first HTTP/2 request is on stream 3 and has weight 42; a window update of its stream",
        "    follows (seen of 153).",
    ),
    "real Firefox (145 and 153 were looked at) has one X25519 key in both shares, ECH GREASE of its own "
    "shape, no session_ticket beside a PSK, and returns a cookie",
    _real_firefox_http2,
)

CHROME_152 = Known(
    lambda hello: hello,
    ("As real Chromium 156, and not as the capture: trust_anchors are sorted, the same every time.",),
    "real Chromium 156 sends trust_anchors sorted, the same every time",
)

SAFARI_27 = Known(
    lambda hello: hello,
    ("As RFC 8446 wants it (4.2.2), and not as the capture: a cookie is returned.",),
    "RFC 8446 (4.2.2) has every client return a cookie",
)

TOR = Known(
    lambda hello: hello,
    (
        "As RFC 8446 wants it, and not as the capture: a cookie is returned (4.2.2), and no PSK is offered",
        "without psk_key_exchange_modes (4.2.9). Tor Browser keeps no sessions.",
    ),
    "RFC 8446 has every client return a cookie (4.2.2), and none offer a PSK without psk_key_exchange_modes "
    "(4.2.9)",
)

ALIASES = {
    "chrome-152": ("chrome",),
    "edge-101": ("edge",),
    "firefox-155": ("firefox",),
    "safari-27.0": ("safari",),
    "tor-14.5": ("tor",),
    "chromium-156": ("chromium",),
    "firefox-esr-153": ("firefox-esr",),
    "curl-7.88": ("curl",),
    "gnutls-3.7": ("gnutls",),
    "go-1.26": ("go",),
    "java-17": ("java",),
    "node-20": ("node",),
    "openssl-3.0": ("openssl",),
    "python-3.11": ("python",),
    "requests-2.34": ("requests",),
    "wget-1.21": ("wget",),
    # The nearest build to one that there is no whole capture of.
    "chrome-142": ("chrome-143-macos-arm64",),
    "firefox-144": ("firefox-145-macos-arm64",),
    "safari-26.0.1": ("safari-26.2-macos-arm64",),
}
"""An unversioned name is the newest."""

DESCRIPTIONS = {
    "chromium-156": "Chromium 156, as Debian builds it",
    "firefox-esr-153": "Firefox ESR 153, as Debian builds it",
    "tor-14.5": "Tor Browser 14.5",
    "curl-7.88": "curl 7.88 with OpenSSL 3.0",
    "gnutls-3.7": "GnuTLS 3.7, gnutls-cli",
    "go-1.26": "Go 1.26, net/http",
    "java-17": "Java 17, HttpClient",
    "java-17-urlconnection": "Java 17, HttpsURLConnection",
    "node-20": "Node.js 20, https",
    "openssl-3.0": "OpenSSL 3.0, s_client",
    "python-3.11": "Python 3.11, urllib",
    "requests-2.34": "requests 2.34 on Python 3.11",
    "wget-1.21": "GNU Wget 1.21 with GnuTLS",
}

_RETRY = "Not reproduced: this client gives up when a HelloRetryRequest asks for nothing but a cookie."

REMARKS = {
    "safari-26.0": ("Real Safari 26.2 sends no session_ticket; whether 26.0 did is not known.",),
    "safari-26.0.1": ("Real Safari 26.2 (macOS) has this JA4, and its extensions in this order.",),
    "gnutls-3.7": (_RETRY,),
    "wget-1.21": (_RETRY,),
}

_PLATFORMS = {"android": "Android", "ios": "iOS", "macos": "macOS"}
_LONG = re.compile(r" zlib/| \(Library|; ")


def builds() -> list[Build]:
    """A profile for each capture."""
    return [_build(path.stem) for path in sorted(CLIENTS.glob("*.json"))]


def _build(name: str) -> Build:
    browser, version, *platform = name.split("-")
    plain = " on ".join(
        (f"{browser.title()} {version}", *(_PLATFORMS[word] for word in platform if word in _PLATFORMS))
    )
    known = None
    if browser == "firefox" and version != "esr":
        known = FIREFOX
    elif name.startswith("chrome-152"):
        known = CHROME_152
    elif name.startswith("safari-27"):
        known = SAFARI_27
    elif browser == "tor":
        known = TOR
    return Build(name, DESCRIPTIONS.get(name, plain), ALIASES.get(name, ()), known, REMARKS.get(name, ()))


def capture(name: str) -> dict[str, Any]:
    """The file of a captured client."""
    loaded: dict[str, Any] = json.loads((CLIENTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def samples(name: str) -> list[bytes]:
    """The first hellos of a captured client, as records."""
    return [bytes.fromhex(sample) for sample in capture(name)["samples"]]


def flight(name: str) -> Http2 | None:
    """The captured HTTP/2 first flight of a client; None where it speaks no HTTP/2."""
    path = FLIGHTS / f"{name}.json"
    if not path.exists():
        return None
    return learn_http2([json.loads(path.read_text(encoding="utf-8"))["http2"]]).http2


def document(build: Build) -> str:
    """The profile's file."""
    taken = capture(build.name)
    client = _LONG.split(taken["client"])[0]
    learned = learn(samples(build.name))
    hello = build.known.change(learned.hello) if build.known else learned.hello
    lines = [f"# {build.description}.", "#", f"# Follows a capture of {client}"]
    lines[-1] += ", an imitation of it." if taken["imitation"] else "."
    known = build.known.words if build.known else ()
    lines += [f"# {line}" for line in (*known, *build.remarks)]
    lines += ["#", "# Written by tests/golden/profiles.py; docs/profiles.md explains the format.", ""]
    words = {
        "description": build.description,
        "aliases": list(build.aliases),
        "captured_from": client,
        "captured_on": taken["captured"],
        "unlike_capture": build.known.why if build.known else "",
    }
    lines += [f"{key} = {toml(value)}" for key, value in words.items() if value]
    if not taken["resumed"]:  # nor does the client, however many tickets it is given
        lines.append("session_resumption = false")
    lines += ["", "[hello]", as_toml(hello)]
    http2 = flight(build.name)
    if http2 is not None:
        lines += ["[http2]", http2_as_toml(build.known.http2(http2) if build.known else http2)]
    return "\n".join(lines)


def index() -> str:
    """`polytls/profiles/index.py`."""
    names = {**BY_KNOBS, **{build.name: build.aliases for build in builds()}}
    rows = "".join(f"        {json.dumps(name)}: {_row(names[name])},\n" for name in sorted(names))
    return f'''"""The built-in profiles and their aliases: a start does not have to read all their files.

Written by tests/golden/profiles.py, and held equal to the files by a test.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILTINS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {{
{rows}    }}
)
"""Name -> aliases. `builtin/NAME.toml` is the profile."""
'''


def _row(aliases: tuple[str, ...]) -> str:
    """A tuple as the formatter leaves it."""
    words = ", ".join(map(json.dumps, aliases))
    return f"({words},)" if len(aliases) == 1 else f"({words})"


def files() -> Iterator[tuple[Path, str]]:
    """Every file that is written here, and its text."""
    yield PROFILES / "index.py", index()
    for build in builds():
        yield PROFILES / "builtin" / f"{build.name}.toml", document(build)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the exact built-in profiles from the captures.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if anything would change"
    )
    options = parser.parse_args(arguments)
    stale = 0
    for path, text in files():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(path.relative_to(PROFILES))
        if not options.check:
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
