"""The table of caches in docs/performance.md is all of them, with their bounds. That bounds hold is tested
beside each cache; that no `lru_cache` is without one, here."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import polytls
from polytls.engine.contexts import VERIFIED_CHAINS_MAX
from polytls.fingerprint import known
from polytls.policy.habits import MAX_CLIENTS
from polytls.proxy.mirror import MAX_SHAPES
from polytls.proxy.resolve import MAX_CACHED_NAMES, MAX_LOOKUPS_WAITING
from polytls.settings import CertificateSettings
from polytls.telemetry.log import MAX_WAITING_LINES

ROOT = Path(__file__).parents[2]

# Where each `lru_cache` is -> its row.
MEMOISED = {
    "polytls.wire.connect._remembered": "heads",
    "polytls.proxy.resolve._at": "addresses",
    "polytls.proxy.recording._text": "addresses as text",
    "polytls.policy.hello._answers": "ALPN answers",
    "polytls.engine.contexts.wire_list": "ALPN lists",
    "polytls.engine.chain._wire_pairs": "ALPN pairs",
    "polytls.engine.chain.milliseconds": "milliseconds",
    "polytls.proxy.recording._named": "handshakes",
    "polytls.telemetry.log._json_of_tls": "handshakes' JSON",
    "polytls.telemetry.log._utc_second": "seconds",
}


def _text() -> str:
    return (ROOT / "docs" / "performance.md").read_text()


def _bounds() -> dict[str, str]:
    """Row -> its bound, as written."""
    table = _text().partition("<!-- caches")[2].partition("<!-- /caches")[0]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")]
    return {row[0]: row[2] for row in rows[1:]}


def _modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(polytls.__path__, "polytls.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def _native(file: str, name: str) -> str:
    found = re.search(rf"{name} = (\d+);", (ROOT / "native" / "src" / file).read_text())
    assert found
    return found.group(1)


def test_every_memoised_function_is_listed_with_its_bound() -> None:
    found: dict[str, Any] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if hasattr(value, "cache_info") and value.__module__ == module.__name__:
                found[f"{module.__name__}.{name}"] = value
    bounds = _bounds()
    assert {name: str(value.cache_info().maxsize) for name, value in found.items()} == {
        place: bounds[row] for place, row in MEMOISED.items()
    }


def test_the_other_caches_are_listed_with_their_bounds() -> None:
    bounds = _bounds()
    expected = {
        "leaves": f"`certificate.cache_size` ({CertificateSettings().cache_size})",
        "verified chains": str(VERIFIED_CHAINS_MAX),
        "verified leaves": _native("tls/trust.h", "kLeavesMax"),
        "sessions": _native("tls/session_cache.h", "kMaxSessions"),
        "leaf keys": _native("tls/credential.cc", "kMaxKeys"),
        "names": str(MAX_CACHED_NAMES),
        "habits": str(MAX_CLIENTS),
        "mirrored shapes": str(MAX_SHAPES),
        "JA4s": str(known.MAX_SHAPES),
        "profiles": "as many as there are",
    }
    assert {row: bound for row, bound in bounds.items() if row not in MEMOISED.values()} == expected
    assert f"{MAX_WAITING_LINES} log lines" in _text()
    assert f"{MAX_LOOKUPS_WAITING} names" in _text()
