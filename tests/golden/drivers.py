"""How each client is made to connect, again and again, to a recorder on 127.0.0.1.

Theory of operation
-------------------
A `Client` has a name (that of its file, and of its profile), a version as it tells itself, and `visit`: make
`Visit.times` connections for `https://golden.test:port/`, one after the other, with one session cache where
the client has one. Nothing else is asked of the client: it has its defaults, so that the hello is what its
users send. A visit may fail (the recorder may hang up on purpose); what counts is what arrived.

Nobody looks names up: each client is told the address in its own way, or sends CONNECT to the recorder.
Browsers come again because the page says so; they are waited for, then ended, by the process group that was
started for them, and their profile directory is thrown away.

`imitation` marks curl_cffi's targets: another program that shows a browser's hello. Where the real browser
is here as well, the real one is right.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.golden.recorder import HOST

PROGRAMS = Path(__file__).parent / "programs"
_PATIENCE_SECONDS = 120.0  # of a program that ends by itself
_BROWSER_SECONDS = 30.0  # of one that does not
_BROWSER_SAMPLES = 32
"""ECH GREASE has four lengths: with 32 samples all are seen, but for one capture in some 2,500."""

_TARGET = re.compile(r"(chrome|edge|firefox|safari|tor)(\d+)a?(?:_(android|ios|macos))?")
_REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class Visit:
    """`enough(seconds)` waits until what was wanted has arrived, or False; for clients that do not end."""

    port: int
    times: int
    authority: Path
    directory: Path
    enough: Callable[[float], bool]

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/"


@dataclass(frozen=True)
class Client:
    name: str
    version: str
    visit: Callable[[Visit], None]
    imitation: bool = False
    samples: int = 8


def clients() -> Iterator[Client]:
    """Every client that is installed here, real ones first. Nothing is started but to ask for its version."""
    yield from _browsers()
    yield from _libraries()
    yield from _imitations()


# --- browsers ---------------------------------------------------------------------------------------


def _browsers() -> Iterator[Client]:
    if version := _tell("chromium", "--version", "--no-sandbox"):
        yield Client(f"chromium-{_digits(version, 1)}", version, _chromium, samples=_BROWSER_SAMPLES)
    if version := _tell("firefox-esr", "--version"):
        yield Client(f"firefox-esr-{_digits(version, 1)}", version, _firefox, samples=_BROWSER_SAMPLES)


def _chromium(visit: Visit) -> None:
    with tempfile.TemporaryDirectory(dir=visit.directory, ignore_cleanup_errors=True) as profile:
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
            f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND",
            "--remote-debugging-port=0",  # or it would end with the first page
            visit.url,
        )


FIREFOX_PREFERENCES: dict[str, str | bool] = {
    # Every name is this machine: nothing that Firefox does by itself gets out.
    "network.dns.forceResolve": "127.0.0.1",
    "network.dns.disableIPv6": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "extensions.update.enabled": False,
    "accessibility.blockautorefresh": False,
}


def _firefox(visit: Visit) -> None:
    with tempfile.TemporaryDirectory(dir=visit.directory, ignore_cleanup_errors=True) as profile:
        database = f"sql:{profile}"
        _run("certutil", "-N", "-d", database, "--empty-password")
        _run("certutil", "-A", "-d", database, "-n", "golden", "-t", "C,,", "-i", str(visit.authority))
        lines = [
            f"user_pref({quoted(name)}, {quoted(value)});" for name, value in FIREFOX_PREFERENCES.items()
        ]
        (Path(profile) / "user.js").write_text("\n".join(lines) + "\n", "utf-8")
        browse(visit, "firefox-esr", "--headless", "--no-remote", "--profile", profile, visit.url)


def quoted(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def browse(visit: Visit, *command: str) -> None:
    """Start, wait until enough has arrived, end the process group that was started."""
    environment = {**os.environ, "HOME": str(visit.directory)}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            visit.enough(_BROWSER_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


# --- libraries and tools ----------------------------------------------------------------------------


def _libraries() -> Iterator[Client]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version := _tell("curl", "--version"):
        yield Client(f"curl-{_digits(version, 2)}", version.splitlines()[0], _curl)
    if version := _tell("wget", "--version"):
        gnutls = " (GnuTLS)" if "+ssl/gnutls" in version else " (OpenSSL)"
        yield Client(f"wget-{_digits(version, 2)}", version.splitlines()[0] + gnutls, _wget)
    if version := _tell("openssl", "version"):
        yield Client(f"openssl-{_digits(version, 2)}", version, _openssl)
    if version := _tell("gnutls-cli", "--version"):
        yield Client(f"gnutls-{_digits(version, 2)}", version.splitlines()[0], _gnutls)
    yield Client(f"python-{python}", _python_version(), partial(_script, "fetch_python.py"))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("requests")
        urllib3 = importlib.metadata.version("urllib3")
        text = f"requests {version}, urllib3 {urllib3}, {_python_version()}"
        yield Client(f"requests-{_digits(version, 2)}", text, partial(_script, "fetch_requests.py"))
    if version := _tell("node", "-p", "`node ${process.version}, OpenSSL ${process.versions.openssl}`"):
        yield Client(f"node-{_digits(version, 1)}", version, _node)
    if (version := _tell("java", "--version")) and shutil.which("keytool"):
        major, text = _digits(version, 1), "; ".join(version.splitlines()[:2])
        yield Client(f"java-{major}", f"HttpClient, {text}", partial(_java, "client"))
        yield Client(
            f"java-{major}-urlconnection", f"HttpsURLConnection, {text}", partial(_java, "connection")
        )
    if version := _tell("go", "version"):
        yield Client(f"go-{_digits(version, 2)}", version, _go)


def _curl(visit: Visit) -> None:
    pages = [part for _ in range(visit.times) for part in ("-o", os.devnull, visit.url)]
    address = f"{HOST}:{visit.port}:127.0.0.1"
    _run("curl", "-q", "-sS", "--resolve", address, "--cacert", str(visit.authority), *pages)


def _wget(visit: Visit) -> None:
    proxy = f"https_proxy=http://127.0.0.1:{visit.port}/"
    options = ["--no-config", "-q", "-O", os.devnull, "--tries=1", "-e", "use_proxy=yes", "-e", proxy]
    _run("wget", *options, f"--ca-certificate={visit.authority}", *[visit.url] * visit.times)


def _openssl(visit: Visit) -> None:
    session = visit.directory / f"session-{visit.port}.pem"
    for _ in range(visit.times):
        options = ["-connect", f"127.0.0.1:{visit.port}", "-servername", HOST, "-quiet", "-ign_eof"]
        known = ["-sess_in", str(session)] if session.exists() else []
        _run(
            "openssl",
            "s_client",
            *options,
            "-CAfile",
            str(visit.authority),
            *known,
            "-sess_out",
            str(session),
            given=_REQUEST,
        )


def _gnutls(visit: Visit) -> None:
    # --resume connects twice: at first only to get a session.
    resume = ["--resume", "--waitresumption"] if visit.times == 2 else []
    for _ in range(1 if resume else visit.times):
        _run(
            "gnutls-cli",
            *resume,
            f"--sni-hostname={HOST}",
            f"--verify-hostname={HOST}",
            f"--x509cafile={visit.authority}",
            f"--port={visit.port}",
            "127.0.0.1",
            given=_REQUEST,
        )


def _script(name: str, visit: Visit) -> None:
    _run(sys.executable, str(PROGRAMS / name), HOST, str(visit.port), str(visit.times), str(visit.authority))


def _node(visit: Visit) -> None:
    environment = {"NODE_EXTRA_CA_CERTS": str(visit.authority)}
    _run("node", str(PROGRAMS / "fetch.js"), HOST, str(visit.port), str(visit.times), environment=environment)


def _java(client: str, visit: Visit) -> None:
    hosts, trusted = visit.directory / "hosts", visit.directory / "trusted.p12"
    hosts.write_text(f"127.0.0.1 {HOST}\n", "ascii")
    if not trusted.exists():
        store = ["-keystore", str(trusted), "-storepass", "changeit", "-storetype", "PKCS12"]
        _run("keytool", "-importcert", "-noprompt", "-alias", "golden", "-file", str(visit.authority), *store)
    _run(
        "java",
        f"-Djdk.net.hosts.file={hosts}",
        f"-Djavax.net.ssl.trustStore={trusted}",
        "-Djavax.net.ssl.trustStorePassword=changeit",
        str(PROGRAMS / "Fetch.java"),
        client,
        HOST,
        str(visit.port),
        str(visit.times),
    )


def _go(visit: Visit) -> None:
    program = visit.directory / "fetch"
    if not program.exists():
        _run("go", "build", "-o", str(program), str(PROGRAMS / "fetch.go"))
    environment = {"SSL_CERT_FILE": str(visit.authority)}
    _run(str(program), HOST, str(visit.port), str(visit.times), environment=environment)


# --- imitations -------------------------------------------------------------------------------------


def _imitations() -> Iterator[Client]:
    try:
        version = importlib.metadata.version("curl_cffi")
    except importlib.metadata.PackageNotFoundError:
        return
    # The list is a typing.Literal there, whose targets without a number are aliases.
    script = (
        "import typing, curl_cffi.requests.impersonate as i; print(*typing.get_args(i.BrowserTypeLiteral))"
    )
    for target in (_tell(sys.executable, "-c", script) or "").split():
        if name := profile_name(target):
            yield Client(
                name,
                f"curl_cffi {version}, {target}",
                partial(_curl_cffi, target),
                imitation=True,
                samples=_BROWSER_SAMPLES,
            )


def profile_name(target: str) -> str | None:
    """curl_cffi's name of a target -> a profile's name; None where it is an alias.

    `chrome133a` -> `chrome-133`, `safari2601` -> `safari-26.0.1`, `safari184_ios` -> `safari-18.4-ios`.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        return None
    browser, digits, platform = found.groups()
    if browser in ("safari", "tor"):  # two digits, then one a part
        digits = ".".join((digits[:2], *digits[2:]))
    return "-".join(filter(None, (browser, digits, platform)))


def _curl_cffi(target: str, visit: Visit) -> None:
    program = str(PROGRAMS / "fetch_curl_cffi.py")
    _run(sys.executable, program, target, HOST, str(visit.port), str(visit.times))


# --- processes --------------------------------------------------------------------------------------


def _run(*command: str, given: bytes = b"", environment: dict[str, str] | None = None) -> None:
    """To its end, however it ends: what it sent is what counts."""
    subprocess.run(
        command,
        input=given,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )


def _tell(*command: str) -> str | None:
    """What a program says about itself; None where it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    return done.stdout.decode(errors="replace").strip() or None


def _digits(version: str, parts: int) -> str:
    """The first `parts` parts of the first number in a version's text."""
    found = re.search(r"\d+(?:\.\d+)*", version)
    if found is None:
        raise ValueError(f"no version number in {version!r}")
    return ".".join(found[0].split(".")[:parts])


def _python_version() -> str:
    script: Sequence[str] = (
        "-c",
        "import ssl, platform; print(platform.python_version(), ssl.OPENSSL_VERSION)",
    )
    return f"Python {_tell(sys.executable, *script)}"
