"""Every setting there is: one descriptor for each key of the TOML file.

`KEYS` drives everything else: reading the file, the environment and the command line, the errors, and the
checks that hold config/polytls.toml and docs/configuration.md to it. A new setting is a field in
`polytls.settings` and a line here.

The reasons for the bounds: a timeout below 0.1 s cuts off healthy clients on a busy machine, and one above an
hour is not a timeout; leaf certificates of more than 397 days are refused by browsers (CA/Browser Forum
Baseline Requirements §6.3.2); the rest keep a slip of the finger from asking for more than a machine has.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from polytls.config import kinds
from polytls.config.ech import ech_rules
from polytls.settings import (
    AlpnPolicy,
    LeafKey,
    LogFormat,
    MirrorUnsupported,
    NonTls,
    OtlpProtocol,
    RootKey,
    Settings,
    SniPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polytls.config.kinds import Kind

ENV_PREFIX = "POLYTLS_"

PROFILES_TABLE = "profiles"
"""Its tables are for `polytls.profiles` to read. They are carried through as parsed TOML, from the file only;
what else it holds are settings like others."""

_HOUR = 3_600
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY

MAX_BACKLOG = 65_535  # the kernel cuts it to net.core.somaxconn anyway
MAX_DNS_CACHE_SECONDS = _DAY
MAX_LEAF_DAYS = 397
MAX_CACHED_LEAVES = 1_000_000  # a few KB each
MAX_TUNNELS = 1_000_000  # two descriptors each; Linux's default fs.nr_open is 1,048,576
MAX_THREADS = 256
MAX_WORKERS = 64  # some 40 MB each


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `path` is its place in the TOML file, `field` its place in `Settings` (empty: checked and
    then dropped), `option` the command-line option that sets it, `doc` what it does, as a sentence,
    `example` what config/polytls.toml shows, in TOML, where there is no default to show."""

    path: str
    field: str
    kind: Kind
    doc: str
    option: str = ""
    example: str = ""

    @property
    def env(self) -> str:
        """The environment variable: ``POLYTLS_`` and the path in capitals, ``__`` for each dot."""
        return ENV_PREFIX + self.path.upper().replace(".", "__")

    @property
    def default(self) -> object:
        """The value where no layer sets the key."""
        if not self.field:
            return "explicit"
        section, name = self.field.split(".")
        return getattr(getattr(Settings(), section), name)


def _timeout(
    name: str, doc: str, lowest: float = 0.1, highest: float = _HOUR, note: str = "", option: str = ""
) -> Key:
    path = f"proxy.timeouts.{name}"
    return Key(path, f"timeouts.{name}", kinds.seconds(lowest, highest, note), doc, option)


KEYS: tuple[Key, ...] = (
    Key(
        "proxy.mode",
        "",
        kinds.explicit_mode(),
        "How clients reach the proxy: by HTTP CONNECT, the only mode there is.",
    ),
    Key(
        "proxy.listen.address",
        "listen.address",
        kinds.listen(),
        "Where to listen. Anyone who can reach it can use the proxy: keep it on a loopback address.",
        "--listen",
    ),
    Key(
        "proxy.listen.backlog",
        "listen.backlog",
        kinds.integer(1, MAX_BACKLOG, "connections"),
        "Connections the kernel may hold that are not accepted yet.",
    ),
    Key(
        "proxy.mitm.enabled",
        "mitm.enabled",
        kinds.flag(),
        "true: terminate the client's TLS and originate another. false: relay tunnels untouched.",
        "--mode",
    ),
    Key(
        "proxy.mitm.sni",
        "mitm.sni",
        kinds.choice(SniPolicy),
        "What a client's hello without a server name means; a differing one is always refused.",
        "--sni",
    ),
    Key(
        "proxy.mitm.alpn",
        "mitm.alpn",
        kinds.choice(AlpnPolicy),
        "narrow: offer upstream what both profile and client speak. strict: the profile's list untouched.",
        "--alpn",
    ),
    Key(
        "proxy.mitm.non_tls",
        "mitm.non_tls",
        kinds.choice(NonTls),
        "What happens to a client that does not begin with a ClientHello.",
    ),
    Key(
        "proxy.mitm.mirror_unsupported",
        "mitm.mirror_unsupported",
        kinds.choice(MirrorUnsupported),
        "Profile mirror: refuse a hello with key shares the engine cannot make, or drop those.",
    ),
    Key(
        "proxy.upstream.default_upstream",
        "upstream.default_upstream",
        kinds.authority(),
        "Lab: dial every tunnel here. SNI, leaf and verification still go by the CONNECT host.",
        example='"127.0.0.1:8443"',
    ),
    Key(
        "proxy.upstream.default_profile",
        "upstream.default_profile",
        kinds.profile_name(),
        "The profile of tunnels that name none by X-PolyTLS-Upstream-Profile.",
        "--profile",
    ),
    Key(
        "proxy.upstream.ca_file",
        "upstream.ca_file",
        kinds.path(),
        "PEM certificates trusted for upstream servers, besides the system's.",
        "--upstream-ca-file",
        example='"ca/upstream.pem"',
    ),
    Key(
        "proxy.upstream.insecure_skip_verify",
        "upstream.insecure_skip_verify",
        kinds.flag(),
        "Lab: do not verify upstream certificates at all.",
        "--upstream-insecure-skip-verify",
    ),
    Key(
        "proxy.upstream.verify_hostname",
        "upstream.verify_hostname",
        kinds.flag(),
        "Check that the upstream certificate is for the CONNECT host. false is for the lab.",
    ),
    Key(
        "proxy.upstream.resolve",
        "upstream.resolve",
        kinds.resolve_table(),
        "Names that are given an address without DNS. Layers add up, name by name.",
        "--resolve",
        example='"*.lab.test" = "127.0.0.1:8443"',
    ),
    Key(
        "proxy.upstream.dns_cache_ttl",
        "upstream.dns_cache_ttl",
        kinds.seconds(0, MAX_DNS_CACHE_SECONDS, "0: no cache"),
        "How long an answer of the resolver is used again.",
    ),
    Key(
        "proxy.upstream.ech",
        "upstream.ech",
        ech_rules(),
        "Hosts whose names go upstream encrypted (ECH), and the configs their servers publish.",
        example='[{ hosts = ["*.lab.test"], file = "ech/lab.test" }]',
    ),
    Key(
        "proxy.certificate.ca_key_path",
        "certificate.ca_key_path",
        kinds.path(),
        "The root CA's private key (PKCS#8 PEM); made on first run.",
        "--ca-dir",
    ),
    Key(
        "proxy.certificate.ca_cert_path",
        "certificate.ca_cert_path",
        kinds.path(),
        "The root CA's certificate (PEM), to be installed in clients; made on first run.",
        "--ca-dir",
    ),
    Key(
        "proxy.certificate.ca_key_passphrase_env",
        "certificate.ca_key_passphrase_env",
        kinds.variable_name(),
        "The variable that holds the passphrase of the root key. Not together with ca_key_passphrase_file.",
        example='"POLYTLS_CA_PASSPHRASE"',
    ),
    Key(
        "proxy.certificate.ca_key_passphrase_file",
        "certificate.ca_key_passphrase_file",
        kinds.path(),
        "The file that holds the passphrase of the root key. Not together with ca_key_passphrase_env.",
        example='"ca/passphrase"',
    ),
    Key(
        "proxy.certificate.cache_ttl",
        "certificate.cache_ttl",
        kinds.seconds(1, MAX_LEAF_DAYS * _DAY),
        "How long a leaf certificate is used again; at most as long as leaf_days makes it valid.",
    ),
    Key(
        "proxy.certificate.cache_size",
        "certificate.cache_size",
        kinds.integer(1, MAX_CACHED_LEAVES, "leaf certificates"),
        "How many leaf certificates are kept.",
    ),
    Key(
        "proxy.certificate.root_key",
        "certificate.root_key",
        kinds.choice(RootKey),
        "The key of a root CA when it is created. rsa: RSA-2048; ecdsa: P-256, by which new names cost less.",
    ),
    Key(
        "proxy.certificate.leaf_key",
        "certificate.leaf_key",
        kinds.choice(LeafKey),
        "The key of leaf certificates. auto: ECDSA P-256 where the client can, else RSA-2048.",
    ),
    Key(
        "proxy.certificate.leaf_days",
        "certificate.leaf_days",
        kinds.integer(1, MAX_LEAF_DAYS, "days"),
        "How long a leaf certificate is valid.",
    ),
    _timeout("head", "From accepting a client to the end of its request head."),
    _timeout("resolve", "For the resolver to answer."),
    _timeout("connect", "For a connection to upstream, all its addresses together."),
    _timeout("hello", "From answering 200 to the client's whole ClientHello."),
    _timeout("handshake", "For one TLS handshake, on either side."),
    _timeout("idle", "Without a byte in either direction, the tunnel is closed.", 0, _YEAR, "0: never"),
    _timeout("half_closed", "As idle, once one direction has ended.", 0, _YEAR, "0: never"),
    _timeout("lifetime", "After this, the tunnel is closed.", 0, _YEAR, "0: never"),
    _timeout(
        "drain",
        "For open tunnels to end when the proxy stops.",
        0,
        _HOUR,
        "0: cut at once",
        "--drain-timeout",
    ),
    Key(
        "proxy.limits.tunnels",
        "limits.tunnels",
        kinds.integer(1, MAX_TUNNELS, "tunnels"),
        "Open tunnels at once, and never more than open files allow (two each); more are answered 503.",
    ),
    Key(
        "engine.threads",
        "engine.threads",
        kinds.integer(0, MAX_THREADS, "threads"),
        "Loop threads of the engine, in each worker; 0: one for each of its usable cores but one, which is"
        " Python's, and at least one. Workers share the cores.",
        "--threads",
    ),
    Key(
        "engine.workers",
        "engine.workers",
        kinds.integer(1, MAX_WORKERS, "processes"),
        "Processes that share the address. Each has its share of limits.tunnels and open files of its own.",
        "--workers",
    ),
    Key("log.format", "log.format", kinds.choice(LogFormat), "The form of the log.", "--log-format"),
    Key(
        "log.fingerprint",
        "log.fingerprint",
        kinds.flag(),
        "MITM: tell the JA4 of the client's hello and of the one upstream was sent.",
    ),
    Key(
        "telemetry.enabled",
        "telemetry.enabled",
        kinds.flag(),
        "false: export nothing, whatever else is set.",
    ),
    Key(
        "telemetry.endpoint",
        "telemetry.endpoint",
        kinds.collector_url(),
        "The OpenTelemetry collector. Without one nothing is exported.",
        example='"http://127.0.0.1:4318"',
    ),
    Key(
        "telemetry.protocol",
        "telemetry.protocol",
        kinds.choice(OtlpProtocol),
        "How the collector is spoken to: mostly port 4318 for HTTP, 4317 for gRPC.",
    ),
    Key(
        "telemetry.headers_file",
        "telemetry.headers_file",
        kinds.path(),
        "Headers for the collector, such as a token: a file with a line NAME=VALUE for each.",
        example='"otlp-headers"',
    ),
    Key(
        "telemetry.certificate_file",
        "telemetry.certificate_file",
        kinds.path(),
        "PEM certificates that an https collector is verified by, instead of the system's.",
        example='"collector.pem"',
    ),
    Key(
        "telemetry.timeout",
        "telemetry.timeout",
        kinds.seconds(0.1, _HOUR),
        "For the collector to take one batch, attempts again included.",
    ),
    Key(
        "telemetry.traces",
        "telemetry.traces",
        kinds.flag(),
        "Export traces: a span for each tunnel and step.",
    ),
    Key("telemetry.metrics", "telemetry.metrics", kinds.flag(), "Export metrics."),
    Key("telemetry.logs", "telemetry.logs", kinds.flag(), "Export logs: each tunnel's record, and warnings."),
    Key(
        "telemetry.sampling",
        "telemetry.sampling",
        kinds.share(),
        "The share of traces that are exported, unless the caller's traceparent has decided.",
    ),
    Key(
        "telemetry.metric_interval",
        "telemetry.metric_interval",
        kinds.seconds(0.1, _DAY),
        "How often metrics are exported.",
    ),
    Key(
        "telemetry.hosts_in_metrics",
        "telemetry.hosts_in_metrics",
        kinds.flag(),
        "Tell metrics apart by CONNECT host too. Every host is a series of its own: for a lab with few.",
    ),
    Key(
        "telemetry.service_name",
        "telemetry.service_name",
        kinds.label(),
        "The service.name of everything that is exported.",
    ),
    Key(
        "telemetry.instance",
        "telemetry.instance",
        kinds.label(),
        "The service.instance.id; unset: a new one for each start.",
        example='"proxy-1"',
    ),
    Key(
        f"{PROFILES_TABLE}.directory",
        "profiles.directory",
        kinds.path(),
        "A directory of profile files, NAME.toml, that are loaded beside the built-in ones.",
        "--profiles",
        example='"profiles"',
    ),
)

BY_PATH: Mapping[str, Key] = MappingProxyType({key.path: key for key in KEYS})
BY_ENV: Mapping[str, Key] = MappingProxyType({key.env: key for key in KEYS})
