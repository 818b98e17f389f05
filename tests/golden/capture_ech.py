"""What browsers send when they do Encrypted ClientHello: ``python -m tests.golden.capture_ech``.

A browser learns a server's configs from DNS, so here it is given a resolver of its own (`programs/doh.go`),
and a server that has the key (tests.peers.servers.go_ech). Each is asked for three things: first hellos,
hellos that resume, and a pair around a HelloRetryRequest. The key is stored with them, so that whoever reads
them can look inside; it was made for the capture, and is used for nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytls.wire.iana import ExtensionType
from tests.golden.drivers import FIREFOX_PREFERENCES, PROGRAMS, Visit, browse, clients, quoted
from tests.golden.recorder import GROUPS, HOST, SentHello
from tests.peers import servers
from tests.peers.certificates import Authority
from tests.peers.ech import EchKey, Sealed
from tests.peers.shim import Tap

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

STORE = Path(__file__).parent / "ech"
PUBLIC_NAME, MAXIMUM_NAME_LENGTH = "public.test", 64
RESOLVER = "resolver.test"
SAMPLES = 3
RETRY_GROUP = "secp384r1"

_PATIENCE_SECONDS = 60.0

Connections = list[list[SentHello]]
Browser = Callable[[Visit, int], None]


def _chromium(visit: Visit, resolver: int) -> None:
    with tempfile.TemporaryDirectory(dir=visit.directory, ignore_cleanup_errors=True) as profile:
        dns = {"mode": "secure", "templates": f"https://127.0.0.1:{resolver}/dns-query{{?dns}}"}
        (Path(profile) / "Local State").write_text(json.dumps({"dns_over_https": dns}), "utf-8")
        browse(
            visit,
            "chromium",
            "--headless",
            "--no-sandbox",
            "--ignore-certificate-errors",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            visit.url,
        )


def _firefox(visit: Visit, resolver: int) -> None:
    preferences = {
        **{
            name: value
            for name, value in FIREFOX_PREFERENCES.items()
            if not name.startswith("network.dns.force")
        },
        "network.trr.uri": f"https://{RESOLVER}:{resolver}/dns-query",
        "network.trr.bootstrapAddr": "127.0.0.1",
        "network.trr.allow-rfc1918": True,
        "network.trr.wait-for-portal": False,
        "network.trr.confirmationNS": "skip",
        "network.dns.force_waiting_https_rr": True,
    }
    with tempfile.TemporaryDirectory(dir=visit.directory, ignore_cleanup_errors=True) as profile:
        database = f"sql:{profile}"
        trusted = ["-A", "-n", "golden", "-t", "C,,", "-i", str(visit.authority)]
        for command in (["-N", "--empty-password"], trusted):
            subprocess.run(["certutil", *command, "-d", database], check=True, capture_output=True)
        lines = [f"user_pref({quoted(name)}, {quoted(value)});" for name, value in preferences.items()]
        lines.append('user_pref("network.trr.mode", 3);')
        (Path(profile) / "user.js").write_text("\n".join(lines) + "\n", "utf-8")
        browse(visit, "firefox-esr", "--headless", "--no-remote", "--profile", profile, visit.url)


BROWSERS: dict[str, Browser] = {"chromium": _chromium, "firefox": _firefox}


def taken(
    browser: Browser, key: EchKey, directory: Path, enough: Callable[[Connections], bool], **options: object
) -> Connections:
    """The connections of one visit, those for the host alone, until they are enough."""
    authority = Authority(directory)
    certificates = [authority.issue(name) for name in (HOST, PUBLIC_NAME)]
    resolvers = authority.issue(RESOLVER, "127.0.0.1")
    with (
        servers.go_ech(certificates, directory, keys=[key.option()], refresh=True, **options) as port,
        Tap(("127.0.0.1", port)) as tap,
        servers.go_program(
            PROGRAMS / "doh.go", directory, str(resolvers), key.config_list.hex(), str(tap.port), HOST
        ) as resolver,
    ):

        def ours() -> Connections:
            public = PUBLIC_NAME.encode()
            return [hellos for hellos in tap.connections if hellos[0].parsed.sni == public]

        def wait(seconds: float) -> bool:
            deadline = time.monotonic() + min(seconds, _PATIENCE_SECONDS)
            while time.monotonic() < deadline and not enough(ours()):
                time.sleep(0.1)
            return enough(ours())

        browser(Visit(tap.port, 1, authority.pem, directory, wait), resolver)
        return ours()


def _inner(hellos: Sequence[SentHello], key: EchKey) -> ClientHello:
    return Sealed(key, hellos[:1]).opened[0].inner


def _resumes(hello: ClientHello) -> bool:
    return hello.extension(ExtensionType.PRE_SHARED_KEY) is not None


def document(name: str, version: str, browser: Browser, directory: Path) -> dict[str, Any]:
    """The file's content."""
    key = EchKey(PUBLIC_NAME, maximum_name_length=MAXIMUM_NAME_LENGTH)

    def ours(seen: Connections) -> Connections:  # browsers ask for much else
        return [hellos for hellos in seen if _inner(hellos, key).sni == HOST.encode()]

    def split(seen: Connections) -> tuple[Connections, Connections]:
        again = [hellos for hellos in ours(seen) if _resumes(_inner(hellos, key))]
        return [hellos for hellos in ours(seen) if hellos not in again], again

    def full(seen: Connections) -> bool:
        first, again = split(seen)
        return bool(first) and len(again) >= SAMPLES

    plain = taken(browser, key, directory, full)
    retried = taken(
        browser,
        key,
        directory,
        lambda seen: any(len(one) == 2 for one in ours(seen)),
        curves=[GROUPS[RETRY_GROUP]],
    )
    first, again = split(plain)
    pair = next(hellos for hellos in ours(retried) if len(hellos) == 2)
    return {
        "name": name,
        "client": version,
        "captured": datetime.now(timezone.utc).date().isoformat(),
        "host": HOST,
        "public_name": PUBLIC_NAME,
        "private_key": key.private.hex(),
        "config": key.config.hex(),
        "first": [hellos[0].records.hex() for hellos in first[:SAMPLES]],
        "resumed": [hellos[0].records.hex() for hellos in again[:SAMPLES]],
        "retry": [hello.records.hex() for hello in pair],
    }


def _installed() -> Iterator[tuple[str, str, Browser]]:
    for client in clients():
        browser = BROWSERS.get(client.name.partition("-")[0])
        if browser is not None and not client.imitation:
            yield client.name, client.version, partial(browser)


def main() -> int:
    STORE.mkdir(exist_ok=True)
    for name, version, browser in _installed():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            content = document(name, version, browser, Path(directory))
        counts = ", ".join(f"{kind} {len(content[kind])}" for kind in ("first", "resumed", "retry"))
        print(f"{name:24} {counts}", flush=True)
        (STORE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
