"""The image, run: what `image_try` sees it do. Each method is one promise of docker/README.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.docker.engine import IMAGE, Engine, limits
from tests.otlp.receiver import Receiver
from tests.peers.certificates import Authority
from tests.peers.origin import Origin, origin_context
from tests.peers.serve import clean_environment

NAME = "polytls-try"
VOLUME = "polytls-try-ca"
CA = "/var/lib/polytls/ca"
PROXY = "http://127.0.0.1:8080"
OTLP_PORT = 4318
HEALTHY_SECONDS = 60.0
ENGINE_PATIENCE_SECONDS = 10
"""What container engines give a process between SIGTERM and SIGKILL."""


def holds(what: bool, text: str) -> None:
    """Say that something holds, or end."""
    if not what:
        raise SystemExit(f"image-try: FAILED: {text.strip()}")
    print(f"ok  {text.strip()}", flush=True)


class Trial:
    """An origin and a collector on loopback, and a container at a time. As a context manager it cleans up."""

    LIMITS = limits()

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._curls = 0

    def __enter__(self) -> Trial:
        self._remove()
        authority = Authority(self._directory)
        authority.pem.chmod(0o644)
        self._roots = authority.pem
        context = origin_context(authority.issue("*.lab.test"))
        self._origin = self._stack.enter_context(Origin(context))
        self._collector = self._stack.enter_context(Receiver(port=OTLP_PORT))
        return self

    def __exit__(self, *_error: object) -> None:
        self._remove()
        self._stack.close()

    # What holds

    def starts_confined(self) -> None:
        """Start it as compose.yaml does, and see that it can do no more than it needs."""
        self._start("--volume", f"{VOLUME}:{CA}")
        holds(True, "it starts on a read-only root, without capabilities, with one volume, and gets healthy")
        status = self._exec("cat", "/proc/1/status")
        facts = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
        user = facts["Uid"].split()[0]
        holds(user == "10001", f"process 1 is the proxy, of user {user}")
        holds(int(facts["CapBnd"], 16) == int(facts["CapEff"], 16) == 0, "it has no capability")
        holds(facts["NoNewPrivs"] == "1", "it can get no privileges")
        print(f"    resident: {int(facts['VmRSS'].split()[0]) / 1024:.0f} MB")
        for place in ("/", "/tmp", "/etc/polytls", "/opt/polytls", "/var/lib/polytls"):
            done = self._engine.run("exec", NAME, "touch", f"{place}/x")
            holds(done.returncode != 0, f"{place} cannot be written")
        modes = self._exec("sh", "-c", f"stat -c '%n %a' {CA}/private.key {CA}/certificate.pem")
        holds("private.key 600" in modes, "the root CA was made in the volume, its key for its user alone")

    def relays(self) -> None:
        """Send curl through it, with two profiles, and to an origin that must be refused."""
        self._root = self._directory / "root.pem"
        self._root.write_text(self._exec("polytls", "ca", "export"), encoding="utf-8")
        hellos = {profile: self._curl(profile) for profile in ("default", "firefox")}
        holds(len(set(hellos.values())) == 2, f"curl gets through, with the hello of each profile: {hellos}")
        refused = self._curl_command("https://127.0.0.1:1/", "default", "--proxytunnel")
        self._curls += 1
        holds(refused.returncode != 0, "an origin that is down is told")

    def exports(self) -> None:
        """A collector gets the spans of these tunnels."""
        self._collector.wait(lambda found: len(found.tunnels()) >= self._curls)
        spans = self._collector.exported().tunnels()
        holds(len(spans) == self._curls, f"the collector has the spans of all {len(spans)} tunnels")

    def is_checked(self) -> None:
        """The image's health check sees a process that hangs, and leaves no trace in the log."""
        started = time.monotonic()
        healthy = self._healthcheck()
        took = time.monotonic() - started
        holds(healthy, f"the health check passes, in {took:.1f} s with the engine's own time")
        pid = int(self._engine("inspect", "--format", "{{.State.Pid}}", NAME))
        os.kill(pid, signal.SIGSTOP)
        try:
            holds(not self._healthcheck(), "it fails while the process hangs")
        finally:
            os.kill(pid, signal.SIGCONT)
        holds(self._healthcheck(), "it passes when the process goes on")
        records = [line for line in self._engine("logs", NAME).splitlines() if line.startswith("{")]
        hosts = [json.loads(line)["host"] for line in records]
        holds(len(hosts) == self._curls, f"the log has {len(hosts)} tunnels, and no health check")

    def stops(self) -> None:
        """SIGTERM ends it in order, before an engine would lose patience."""
        self._root_fingerprint = self._fingerprint()
        started = time.monotonic()
        self._engine("stop", "--time", str(ENGINE_PATIENCE_SECONDS), NAME)
        took = time.monotonic() - started
        code = self._engine("inspect", "--format", "{{.State.ExitCode}}", NAME).strip()
        holds(code == "0", f"SIGTERM ends it with exit status {code} after {took:.1f} s")
        changed = self._engine("diff", NAME, check=False).split()
        mounted = {"C", "A", "/etc", "/run", "/var", "/var/lib", "/var/lib/polytls", CA, "/mnt"}
        left = [path for path in changed if path not in mounted and not path.startswith(("/run/", "/mnt/"))]
        holds(not left, f"it left nothing in its root file system {left or ''}")

    def keeps_its_root(self) -> None:
        """Another container with the same volume has the same CA."""
        self._start("--volume", f"{VOLUME}:{CA}")
        holds(
            self._fingerprint() == self._root_fingerprint, "another container on the volume has the same CA"
        )

    def takes_profiles(self) -> None:
        """A directory of profiles, mounted read-only."""
        profiles = self._directory / "profiles"
        profiles.mkdir()
        text = self._exec("polytls", "profiles", "show", "firefox").replace(
            "[profiles.firefox-155", "[profiles.mine"
        )
        (profiles / "mine.toml").write_text(text, encoding="utf-8")
        self._open(profiles)
        variable = "POLYTLS_PROFILES__DIRECTORY=/etc/polytls/profiles"
        mounts = ("--volume", f"{VOLUME}:{CA}", "--volume", f"{profiles}:/etc/polytls/profiles:ro")
        self._start(*mounts, "--env", variable)
        holds("mine" in self._exec("polytls", "profiles", "list"), "profiles can be mounted")
        holds(self._curl("mine") == self._curl("firefox"), "and are used")

    def takes_a_root_that_is_read_only(self) -> None:
        """A CA of one's own, mounted as secrets are: no place at all is writable."""
        root = self._directory / "ca"
        root.mkdir()
        for name in ("private.key", "certificate.pem"):
            (root / name).write_text(self._exec("cat", f"{CA}/{name}"), encoding="utf-8")
        self._open(root)
        self._start("--volume", f"{root}:{CA}:ro")
        holds(self._fingerprint() == self._root_fingerprint, "a CA of one's own can be mounted read-only")

    def runs_as_another_user(self) -> None:
        """A user that the image does not know, with a directory of his."""
        root = self._directory / "his"
        root.mkdir(mode=0o700)
        os.chown(root, 23456, 23456)
        self._start("--volume", f"{root}:{CA}", "--user", "23456:23456")
        holds((root / "private.key").stat().st_uid == 23456, "it runs as a user that the image does not know")

    def passes_through(self) -> None:
        """Passthrough needs neither CA nor volume."""
        empty = self._directory / "empty"
        empty.mkdir()
        self._start("--volume", f"{empty}:{CA}:ro", "--env", "POLYTLS_PROXY__MITM__ENABLED=false")
        done = self._curl_command(self._url, None, "--cacert", str(self._roots))
        holds(done.returncode == 0, f"in passthrough, curl sees the origin's own certificate {done.stderr}")

    def says_what_is_wrong(self) -> None:
        """A directory that may not be written is a sentence, and exit status 2."""
        root = self._directory / "not-his"
        root.mkdir(mode=0o755)
        self._remove_container()
        done = self._engine.run("run", "--name", NAME, *self._options("--volume", f"{root}:{CA}"), IMAGE)
        # podman itself has something to say where there is no systemd
        lines = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
        said = done.returncode == 2 and len(lines) == 1 and lines[0].startswith("polytls: error: ")
        holds(said, f"a directory of somebody else's is told: {lines[-1] if lines else done.returncode}")

    # How

    @property
    def _url(self) -> str:
        return f"https://origin.lab.test:{self._origin.port}/hello"

    def _options(self, *more: str) -> list[str]:
        """Those of compose.yaml, and where to find origin and collector."""
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{OTLP_PORT}",
            "POLYTLS_TELEMETRY__SAMPLING": "1",
            "POLYTLS_PROXY__UPSTREAM__RESOLVE": "*.lab.test:127.0.0.1",
            "POLYTLS_PROXY__UPSTREAM__CA_FILE": "/mnt/origins.pem",
        }
        options = ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--network", "host"]
        options += ["--health-interval", "disable", "--volume", f"{self._roots}:/mnt/origins.pem:ro"]
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        return [*options, *self.LIMITS, *more]

    def _start(self, *more: str) -> None:
        self._remove_container()
        self._engine("run", "--detach", "--name", NAME, *self._options(*more), IMAGE)
        deadline = time.monotonic() + HEALTHY_SECONDS
        while not self._healthcheck():
            if time.monotonic() > deadline:
                raise SystemExit(f"image-try: FAILED: not healthy: {self._engine.run('logs', NAME)}")
            time.sleep(0.2)

    def _healthcheck(self) -> bool:
        """The image's own HEALTHCHECK, as the engine runs it."""
        return self._engine.run("healthcheck", "run", NAME).returncode == 0

    def _exec(self, *command: str) -> str:
        return self._engine("exec", NAME, *command)

    def _fingerprint(self) -> str:
        return self._exec("polytls", "ca", "show").split()[-1]

    def _curl(self, profile: str) -> str:
        """The JA4 of the hello that the origin saw, of a request that has to go well."""
        done = self._curl_command(self._url, profile, "--cacert", str(self._root))
        self._curls += 1
        if done.returncode != 0:
            raise SystemExit(f"image-try: FAILED: curl: {done.stderr} {self._engine.run('logs', NAME)}")
        found: dict[str, Any] = json.loads(done.stdout)
        return str(found["ja4"])

    def _curl_command(self, url: str, profile: str | None, *more: str) -> subprocess.CompletedProcess[str]:
        curl = shutil.which("curl")
        if curl is None:
            raise SystemExit("image-try: FAILED: curl is not installed")
        command = [curl, "--silent", "--show-error", "--fail", "--max-time", "30", "--proxy", PROXY, *more]
        if profile is not None:
            command += ["--proxy-header", f"X-PolyTLS-Upstream-Profile: {profile}"]
        return subprocess.run(
            [*command, url], capture_output=True, text=True, timeout=60, check=False, env=clean_environment()
        )

    def _open(self, directory: Path) -> None:
        """What is mounted read-only may be read by the container's user: secrets are 0444 there."""
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o444)

    def _remove(self) -> None:
        self._remove_container()
        self._engine.run("volume", "rm", "--force", VOLUME)

    def _remove_container(self) -> None:
        self._engine.run("rm", "--force", "--time", "5", NAME)
