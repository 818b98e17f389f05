"""The proxy under soak: the real `App` with the real engine, in a process of its own that can be asked.

It is told what to be by one JSON object as its argument, says ``READY {"port": ...}``, and then answers
each JSON line on standard input with one on standard output:

* ``{"do": "snapshot"}``: waits until nothing is under way, then says what there is: the engine's counters,
  the ledger, descriptors, threads, memory.
* ``{"do": "stats"}``: the same, without waiting.
* ``{"do": "light"}``: of that, what costs nothing, not even a descriptor: counters and records.
* ``{"do": "faults", "rules": [[call, error, after, count, one_in, seed], ...]}``: where the shim of
  native/faults is preloaded, these are its rules from now on; what the last ones have struck comes back.
* ``{"do": "clock", "seconds": n}``: likewise, what the wall clock is ahead by.
* ``{"do": "let_go"}``: names that never resolve do now.
* ``{"do": "reload", "number": n}``: go by another configuration, the n-th of `RELOADS`, over and over; 0 is
  the one of the start. Whether it was taken comes back.

The end of standard input ends it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import shutil
import socket
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from polytls.app import App
from polytls.config import LoadedSettings
from polytls.events import Event, NotReloaded, TunnelRecord, Warned
from polytls.program import GC_THRESHOLD, raise_file_limit
from polytls.settings import (
    Address,
    CertificateSettings,
    EngineSettings,
    LimitSettings,
    ListenSettings,
    LogFormat,
    MitmSettings,
    RootKey,
    Settings,
    TimeoutSettings,
    UpstreamSettings,
)
from polytls.telemetry.log import TunnelLog, to_stream
from tests.bench.machine import memory
from tests.soak.ledger import Ledger

SETTLE_SECONDS = 45.0
"""A closing stream may wait 30 s for its last bytes to be taken (native/src/engine/io.cc)."""
LEAF_CACHE = 2000
"""Leaves kept: small, so that it is full, and its memory constant, soon."""
_LOOK_SECONDS = 0.05
_NOWHERE = ".nowhere.test"
_HANGS = ".hang.test"
_BREAKS = ".broken.test"


class Names:
    """The resolver's lookup: everything is here, but what is nowhere, or never answers."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def __call__(self, host: str) -> list[str]:
        if host.endswith(_NOWHERE):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host.endswith(_BREAKS):
            raise socket.gaierror(socket.EAI_AGAIN, "the resolver is out of order")
        if host.endswith(_HANGS):
            self.let_go.wait(SETTLE_SECONDS)
        return ["127.0.0.1"]


def settings_of(wanted: dict[str, Any], number: int = 0) -> Settings:
    """What the subject is told to be, in one of `RELOADS` ways that come to the same for every tunnel."""
    directory = Path(wanted["directory"])
    settings = _settings_of(wanted, directory)
    if number % 2:  # another hello for whoever names no profile, and a profile more
        settings = replace(
            settings,
            upstream=replace(settings.upstream, default_profile="lab", dns_cache_ttl=4.0),
            limits=LimitSettings(settings.limits.tunnels - 1),
            profile_tables={"lab": {"base": "firefox-155"}},
        )
    if number % RELOADS >= 2:  # roots from another file, so that all contexts are others, and leaves too
        copy = directory / "roots.pem"
        if not copy.exists():
            shutil.copy(wanted["ca"], copy)
            copy.write_text(copy.read_text(encoding="ascii") + "\n", encoding="ascii")
        settings = replace(
            settings,
            upstream=replace(settings.upstream, ca_file=copy),
            certificate=replace(settings.certificate, leaf_days=30),
        )
    return settings


RELOADS = 4


def _settings_of(wanted: dict[str, Any], directory: Path) -> Settings:
    return Settings(
        listen=ListenSettings(Address("127.0.0.1", 0)),
        mitm=MitmSettings(enabled=wanted.get("mitm", True)),
        upstream=UpstreamSettings(
            ca_file=Path(wanted["ca"]), default_profile=wanted.get("profile", "chrome-152"), dns_cache_ttl=5.0
        ),
        certificate=CertificateSettings(
            ca_key_path=directory / "root.key",
            ca_cert_path=directory / "root.pem",
            cache_size=LEAF_CACHE,
            root_key=RootKey.ECDSA,
        ),
        timeouts=TimeoutSettings(**{**_TIMEOUTS, **wanted.get("timeouts", {})}),
        limits=LimitSettings(tunnels=wanted.get("tunnels", 4000)),
        engine=EngineSettings(threads=wanted.get("threads", 3)),
    )


_TIMEOUTS = {
    "head": 20.0,
    "resolve": 10.0,
    "connect": 1.0,
    "hello": 20.0,
    "handshake": 20.0,
    "idle": 60.0,
    "half_closed": 60.0,
}


class Subject:
    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._ledger = Ledger()
        self._reports: list[str] = []
        self._names = Names()
        self._null = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - closed in `run`
        self._log = TunnelLog(to_stream(self._null), LogFormat.JSON)
        self._shim = ctypes.CDLL(wanted["shim"]) if wanted.get("shim") else None
        self._app = App(settings_of(wanted), sink=self._sink, lookup=self._names)

    def _sink(self, event: Event) -> None:
        if isinstance(event, TunnelRecord):
            self._ledger(event)
            self._log(event)
        elif isinstance(event, Warned) and "defect" in event.text:
            self._reports.append(event.text)
        elif isinstance(event, NotReloaded):
            self._reports.append(event.reason)

    async def run(self) -> None:
        try:
            address = await self._app.start()
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLD)
            print("READY " + json.dumps({"port": address.port}), flush=True)
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                print(json.dumps(await self._answer(json.loads(line))), flush=True)
        finally:
            self._names.let_go.set()
            await self._app.stop(1.0)
            self._log.close()
            self._null.close()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["do"]:
            case "snapshot":
                await self._settle()
                gc.collect()
                return self._snapshot()
            case "stats":
                return self._snapshot()
            case "light":
                return self._light()
            case "faults":
                return {"struck": self._arm(asked["rules"])}
            case "clock":
                assert self._shim is not None
                self._shim.faults_shift_clock(ctypes.c_int64(asked["seconds"]))
                return {"time": time.time()}
            case "let_go":
                self._names.let_go.set()
                return {}
            case "reload":
                return {"taken": await self._reload(asked["number"])}
            case other:
                raise ValueError(other)

    async def _reload(self, number: int) -> bool:
        def read() -> LoadedSettings:
            return LoadedSettings(settings_of(self._wanted, number), {})

        return await self._app.reload(read)

    def _arm(self, rules: list[list[int]]) -> int:
        shim = self._shim
        assert shim is not None
        shim.faults_struck.restype = ctypes.c_uint64
        struck = int(shim.faults_struck())
        shim.faults_clear()
        for call, error, after, count, one_in, seed in rules:
            added = shim.faults_add(
                call,
                error,
                ctypes.c_uint64(after),
                ctypes.c_uint64(count),
                ctypes.c_uint32(one_in),
                ctypes.c_uint64(seed),
            )
            assert added, "the shim takes no such rule"
        return struck

    async def _settle(self) -> None:
        engine, server = self._app.engine, self._app.server
        assert engine is not None
        assert server is not None
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            stats = engine.stats()
            left = stats.streams or stats.operations or stats.buffered_bytes or stats.completions
            if not left and not server.tracker.live:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _snapshot(self) -> dict[str, Any]:
        # Threads that look names up come and go within a bound (proxy/resolve.py); the others stay.
        passing = sum(thread.name.startswith("polytls-resolve") for thread in threading.enumerate())
        return {
            **self._light(),
            "log_dropped": self._log.dropped,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": len(list(Path("/proc/self/task").iterdir())) - passing,
            "pss_kb": memory([os.getpid()]).pss_kb,
        }

    def _light(self) -> dict[str, Any]:
        engine, server = self._app.engine, self._app.server
        assert engine is not None
        assert server is not None
        ledger = self._ledger
        return {
            "engine": asdict(engine.stats()),
            "live": len(server.tracker.live),
            "admitted": server.tracker.admitted,
            "unspoken": server.tracker.unspoken,
            "records": ledger.total,
            "last": ledger.last,
            "missing": ledger.missing,
            "twice": ledger.twice,
            "counts": [[label, outcome, count] for (label, outcome), count in sorted(ledger.counts.items())],
            "internal": [*ledger.samples, *self._reports[:8]],
        }


def main() -> None:
    raise_file_limit()
    asyncio.run(Subject(json.loads(sys.argv[1])).run())


if __name__ == "__main__":
    main()
