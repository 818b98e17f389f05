"""Everything that one connection told, as a value, as JSON and as text (pure).

The JSON is what the server answers with, what `polytls capture --json` prints, one object a line, and what
`--save` writes: the fingerprints and lists of `polytls.fingerprint.report`, and beside them ``client`` (its
address), ``hello`` (the TLS records in hexadecimal, so that a report can be read like any other capture),
and, where there was TLS, ``tls``, ``http1`` or ``http2``. Header fields are given by name alone: values may
be secrets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytls.fingerprint.report import fingerprint

if TYPE_CHECKING:
    from polytls.wire.client_hello import ClientHello

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection. `raw` are the records of its hello; `failure` says why TLS or HTTP came to nothing."""

    client: str
    hello: ClientHello
    raw: bytes = field(repr=False)
    tls: Json | None = None
    http1: Json | None = None
    http2: Json | None = None
    failure: str | None = None

    def as_dict(self) -> Json:
        """Raises `HelloError` where an extension that fingerprints look into is malformed."""
        more = {"tls": self.tls, "http1": self.http1, "http2": self.http2, "failure": self.failure}
        return {
            "client": self.client,
            **fingerprint(self.hello).as_dict(),
            **{name: value for name, value in more.items() if value is not None},
            "hello": self.raw.hex(),
        }

    def as_json(self, indent: int | None = None) -> str:
        """Raises what `as_dict` raises."""
        return json.dumps(self.as_dict(), indent=indent)

    def as_text(self) -> str:
        """Several lines, no line break at the end. Raises what `as_dict` raises."""
        lines = [f"client                {self.client}", fingerprint_text(self.hello)]
        if self.tls is not None:
            lines.append(f"{'agreed on':<22}" + ", ".join(str(value) for value in self.tls.values() if value))
        if self.http2 is not None:
            lines.append(f"{'HTTP/2':<22}{self.http2['akamai']}")
        if self.http1 is not None:
            names = self.http1["headers"]
            assert isinstance(names, list)
            lines.append(f"{'HTTP/1.1':<22}" + ", ".join(names))
        if self.failure is not None:
            lines.append(f"{'failure':<22}{self.failure}")
        return "\n".join(lines)


def fingerprint_text(hello: ClientHello) -> str:
    """All fingerprints of a hello, then what it offers, one line each. Raises `HelloError`."""
    report = fingerprint(hello)
    first = [
        ("JA3", report.ja3.ja3_hash),
        ("JA3N", report.ja3.ja3n_hash),
        ("JA4", report.ja4.ja4),
        ("JA4_r", report.ja4.ja4_r),
        ("JA4_o", report.ja4.ja4_o),
        ("JA4_ro", report.ja4.ja4_ro),
        ("record version", report.record_version or "-"),
    ]
    told = {"JA4", "JA3", "JA3, sorted"}
    rest = [line for line in report.as_text().splitlines() if line[:22].rstrip() not in told]
    return "\n".join([*(f"{label:<22}{value}" for label, value in first), *rest])
