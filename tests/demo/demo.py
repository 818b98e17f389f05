"""``make demo``: the same `curl`, and an origin that sees another client each time.

Starts a TLS origin and the proxy, both on free ports with certificates of their own in a temporary
directory, and sends one request straight and one through each of three profiles. Prints what the origin saw
of each. Then everything is stopped and removed. Exits with 1 and one sentence where something is missing or
goes wrong.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script

from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import Serve, clean_environment

HOST = "origin.lab.test"
PROFILES = ("chrome", "firefox", "safari")
CURL_SECONDS = "30"
COLUMNS = ("client", "JA3 hash", "JA4", "ALPN", "TLS offered", "ext.", "agreed")


@dataclass(frozen=True)
class Row:
    """What the origin saw of one request, as the table shows it."""

    cells: tuple[str, ...]
    ja3: str
    ja4: str


class DemoError(Exception):
    """One sentence for whoever runs the demo."""


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="polytls-demo-") as directory:
            rows = run(_find_curl(), Path(directory))
    except (DemoError, RuntimeError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print()
    print(table([COLUMNS, *(row.cells for row in rows)]))
    print()
    _, *through = rows
    distinct = (len({row.ja3 for row in through}), len({row.ja4 for row in through}))
    counts = f"{len(through)} profiles, {distinct[0]} JA3, {distinct[1]} JA4"
    print(f"{counts}; the client was the same curl each time.")
    if distinct != (len(through), len(through)):
        print("demo: error: two profiles look alike to the origin", file=sys.stderr)
        return 1
    return 0


def run(curl: str, directory: Path) -> list[Row]:
    """The first row is curl's own hello, straight to the origin; then one for each profile."""
    authority = Authority(directory, "PolyTLS demo origin")
    with (
        Origin(origin_context(authority.issue(HOST))) as origin,
        Serve(
            directory / "ca",
            "--resolve",
            f"{HOST}:127.0.0.1",
            "--upstream-ca-file",
            str(authority.pem),
        ) as proxy,
    ):
        url = f"https://{HOST}:{origin.port}/"
        print(f"origin   {url}, on 127.0.0.1")
        print(f"proxy    {proxy.url}, MITM")
        straight = ["--cacert", str(authority.pem), "--resolve", f"{HOST}:{origin.port}:127.0.0.1", url]
        rows = [_ask(curl, "curl, straight", straight)]
        for profile in PROFILES:
            wanted = f"X-PolyTLS-Upstream-Profile: {profile}"
            print(f"sending  curl --cacert ca/certificate.pem -x {proxy.url} --proxy-header '{wanted}' {url}")
            through = ["--cacert", str(proxy.root_pem), "-x", proxy.url, "--proxy-header", wanted, url]
            rows.append(_ask(curl, profile, through))
        return rows


def table(rows: list[tuple[str, ...]]) -> str:
    """Left-aligned columns, with a rule under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _find_curl() -> str:
    curl = shutil.which("curl")
    if curl is None:
        raise DemoError("curl was not found; install it (Debian, Ubuntu: apt-get install curl)")
    return curl


def _ask(curl: str, client: str, arguments: list[str]) -> Row:
    done = subprocess.run(
        [curl, "-q", "-sS", "--fail-with-body", "--max-time", CURL_SECONDS, *arguments],
        capture_output=True,
        env=clean_environment(),
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise DemoError(f"the request of {client} failed: {said}")
    seen = json.loads(done.stdout)
    extensions = [name for name in seen["extensions"] if not name.startswith("GREASE")]
    versions = [name for name in seen["supported_versions"] if not name.startswith("GREASE")]
    agreed = " ".join(filter(None, (seen["negotiated_version"], seen["negotiated_alpn"])))
    return Row(
        (
            client,
            seen["ja3_hash"],
            seen["ja4"],
            ", ".join(seen["alpn"]) or "-",
            ", ".join(version.removeprefix("TLS ") for version in versions),
            str(len(extensions)),
            agreed,
        ),
        seen["ja3_hash"],
        seen["ja4"],
    )


if __name__ == "__main__":
    sys.exit(main())
