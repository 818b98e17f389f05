"""`polytls serve` as whoever runs it sees it: a process of its own, on a free port, its log read as JSON.

A test finds its record by the host name it used: names are free of charge, and no test depends on the order
in which another one's tunnels end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HANG_SECONDS = 60.0
"""No wait of a test that passes comes near it."""
_ANNOUNCED = re.compile(r"^PolyTLS \S+: \S+ on http://(\S+),")

Record = dict[str, Any]


def clean_environment() -> dict[str, str]:
    """The environment without what would make clients or the proxy behave otherwise."""
    unwanted = ("_proxy", "polytls_", "otel_", "ssl_cert", "curl_", "requests_ca", "sslkeylog")
    return {name: value for name, value in os.environ.items() if not any(u in name.lower() for u in unwanted)}


def went_well(record: Record) -> bool:
    """Did the tunnel do all it was for?

    A client that closes its socket with bytes unread (session tickets, say) resets the connection. In MITM
    mode the engine has seen its goodbye before; an untouched tunnel can only say what happened.
    """
    if record["mode"] == "passthrough" and record["outcome"] == "client_reset":
        return bool(record["bytes_up"] and record["bytes_down"])
    return bool(record["outcome"] == "completed")


def assert_went_well(record: Record) -> None:
    """`went_well`, or else what the log says."""
    assert went_well(record), json.dumps(record)


class Serve:
    """A running proxy. `ca_dir` holds its root CA (made by the first start). As a context manager it stops it
    by SIGTERM and wants exit code 0. `environ`: variables on top of the clean environment. `under` is a
    command that becomes the one that follows it."""

    def __init__(
        self,
        ca_dir: Path,
        *options: str,
        listen: str = "127.0.0.1:0",
        environ: Mapping[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> None:
        self.root_pem = ca_dir / "certificate.pem"
        self._changed = threading.Condition()
        self._records: list[Record] = []
        self._notes: list[str] = []
        self._streams_ended = 0
        self.address = ""
        command = [sys.executable, "-m", "polytls", "serve", "--listen", listen, "--ca-dir", str(ca_dir)]
        self._process = subprocess.Popen(
            [*under, *command, "--log-format", "json", "--drain-timeout", "1", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            env={**clean_environment(), **(environ or {})},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read, args=(stream, take), daemon=True)
            for stream, take in (
                (self._process.stdout, self._take_record),
                (self._process.stderr, self._take_note),
            )
        ]
        for thread in self._threads:
            thread.start()
        with self._changed:
            # Its end is seen by its streams': it is there to be waited for only a little later.
            self._changed.wait_for(lambda: self.address or self._streams_ended == 2, timeout=HANG_SECONDS)
        if not self.address:
            self.stop()
            raise RuntimeError(f"the proxy did not start: {self.notes}")

    def __enter__(self) -> Serve:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.stop() == 0, self.notes

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def notes(self) -> str:
        """What it wrote to stderr so far."""
        with self._changed:
            return "\n".join(self._notes)

    def wait_for_note(self, text: str) -> None:
        """Notes are written by a thread of the proxy's: wait until one has `text`."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(text in note for note in self._notes), HANG_SECONDS)
        assert found, (text, self.notes)

    def records(self, host: str, count: int = 1) -> list[Record]:
        """The records of the first `count` tunnels to `host` that ended, when they are there."""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            with self._changed:
                found = [record for record in self._records if record["host"] == host]
                if len(found) >= count:
                    return found
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"{len(found)} of {count} records for {host}; {self._notes}")

    def all_records(self) -> list[Record]:
        """Every record so far; all there are once it has stopped."""
        with self._changed:
            return list(self._records)

    def record(self, host: str) -> Record:
        """The record of the one tunnel to `host`, when it has ended."""
        (record,) = self.records(host)
        return record

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> int:
        """Stop it by SIGTERM; its exit code. Further calls do nothing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = -1
        for thread in self._threads:
            thread.join(HANG_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return code

    def _read(self, stream: IO[str], take: Any) -> None:
        for line in stream:
            with self._changed:
                take(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._streams_ended += 1
            self._changed.notify_all()

    def _take_record(self, line: str) -> None:
        self._records.append(json.loads(line))

    def _take_note(self, line: str) -> None:
        self._notes.append(line)
        if found := _ANNOUNCED.match(line):
            self.address = found.group(1)
