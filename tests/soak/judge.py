"""What must hold after a soak, and the sentences for what does not.

The bound of memory: between the end of the warm-up and the end of the soak, PSS at rest may grow by at most
`MOST_GROWTH_KB` in all, and by the slope of a line through all checkpoints by at most `MOST_SLOPE_KB` for
100,000 tunnels. The slope counts from `SLOPE_TUNNELS` on: below, what an allocator keeps at one checkpoint
and not at the next would decide. A leak of one byte in ten a tunnel is below either bound; one of 50 bytes
a tunnel is above.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.soak.ledger import NO_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.soak.load import Round

MOST_SLOPE_KB = 4096.0
MOST_GROWTH_KB = 24 * 1024
SLOPE_TUNNELS = 100_000

# What a tunnel of a behaviour may end in. A reset may be seen at any step, which then gives it its name.
_WELL = frozenset({"completed"})
ENDINGS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "get",
            "post",
            "echo",
            "pingpong",
            "half-close",
            "slow-read",
            "slow-write",
            "origin-close",
            "origin-cut",
        ),
        _WELL,
    ),
    # A client that has all it was announced (nothing, of an empty body) may leave before the reset comes.
    "origin-reset": frozenset({"upstream_reset", "completed"}),
    "reset": frozenset({"client_reset", "completed"}),
    "reset-early": frozenset(
        {"head_closed", "client_closed", "client_rejects_leaf", "client_reset", "completed"}
    ),
    "leave": frozenset({"head_closed", "client_closed"}),
    "hello-cut": frozenset({"client_closed"}),
    "garbage": frozenset({"not_tls"}),
    "reject-leaf": frozenset({"client_rejects_leaf"}),
    "bad-chain": frozenset({"certificate_unknown_root"}),
    "sni-mismatch": frozenset({"sni_mismatch"}),
    "alpn-mismatch": frozenset({"alpn_mismatch"}),
    "origin-alert": frozenset({"upstream_alert"}),
    "origin-plain": frozenset({"upstream_not_tls"}),
    "origin-hangup": frozenset({"upstream_closed", "upstream_reset"}),
    "no-name": frozenset({"name_not_found"}),
    "refused": frozenset({"connect_refused"}),
    "hole": frozenset({"connect_timeout"}),
    NO_HOST: frozenset({"not_connect", "malformed_head", "head_closed", "bad_authority"}),
}
_NO_HEAD = ("bad-head", "not-connect")
_MAYBE_NO_HEAD = ("reset-early", "leave")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The proxy at rest, after so many tunnels of the clients'."""

    tunnels: int
    seconds: float
    snapshot: Mapping[str, Any]

    @property
    def pss_kb(self) -> int:
        return int(self.snapshot["pss_kb"])


def at_rest(snapshot: Mapping[str, Any]) -> list[str]:
    """What is left of tunnels that are over, and what never may be."""
    wrong = [
        f"{snapshot['engine'][name]} {name} are left"
        for name in ("streams", "operations", "relays", "buffered_bytes", "completions")
        if snapshot["engine"][name]
    ]
    wrong += [f"{snapshot[name]} tunnels are {name}" for name in ("live", "admitted") if snapshot[name]]
    if snapshot["engine"]["impossible"]:
        wrong.append(f"the engine did {snapshot['engine']['impossible']} impossible things")
    if snapshot["twice"] or snapshot["missing"]:
        wrong.append(f"{snapshot['twice']} records came twice, {snapshot['missing']} are missing")
    wrong += [f"an internal failure: {text}" for text in snapshot["internal"]]
    return wrong


def same_as_before(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Descriptors and threads are back where they were."""
    return [
        f"{name}: {before[name]} before, {now[name]} now"
        for name in ("descriptors", "threads")
        if now[name] > before[name]
    ]


def accounts(rounds: Sequence[Round], snapshot: Mapping[str, Any]) -> list[str]:
    """Do the proxy's records say what the clients did, one by one and outcome by outcome?"""
    did: Counter[str] = Counter()
    for one in rounds:
        did.update(one.by_label)
    wrong = [f"{count} tunnels: {why}" for one in rounds for why, count in one.failures.items()]
    records: Counter[str] = Counter()
    for label, outcome, count in snapshot["counts"]:
        records[label] += count
        if outcome not in ENDINGS.get(label, frozenset()):
            wrong.append(f"{count} tunnels of {label or 'no host'} ended in {outcome}")
    known = set(did) - set(_NO_HEAD) - set(_MAYBE_NO_HEAD)
    wrong += [
        f"{label}: the clients made {did[label]} tunnels, there are {records[label]} records"
        for label in sorted(known | (set(records) - {NO_HOST} - set(_MAYBE_NO_HEAD)))
        if did[label] != records[label]
    ]
    total, unspoken = sum(did.values()), snapshot["unspoken"]
    if snapshot["engine"]["accepted"] != total:
        wrong.append(f"the clients connected {total} times, {snapshot['engine']['accepted']} were accepted")
    if snapshot["records"] + unspoken != total:
        wrong.append(
            f"{total} tunnels, but {snapshot['records']} records and {unspoken} that closed without a word"
        )
    return wrong


def slope_kb(checkpoints: Sequence[Checkpoint]) -> float:
    """KB of PSS for 100,000 tunnels, by least squares."""
    xs, ys = [one.tunnels / 100_000 for one in checkpoints], [one.pss_kb for one in checkpoints]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def memory(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Is memory back at its base? `checkpoints` begin with the end of the warm-up."""
    grown = checkpoints[-1].pss_kb - checkpoints[0].pss_kb
    wrong = []
    if grown > MOST_GROWTH_KB:
        wrong.append(f"memory grew by {grown} KB; at most {MOST_GROWTH_KB} are allowed")
    tunnels = checkpoints[-1].tunnels - checkpoints[0].tunnels
    slope = slope_kb(checkpoints)
    if tunnels >= SLOPE_TUNNELS and slope > MOST_SLOPE_KB:
        wrong.append(
            f"memory grows by {slope:.0f} KB for 100,000 tunnels; at most {MOST_SLOPE_KB:.0f} are allowed"
        )
    return wrong
