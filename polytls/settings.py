"""What the program does, as one immutable value.

`Settings` is the only form in which configuration reaches the rest of the program. It is built by
`polytls.config` from defaults, TOML, environment and command line; nothing below `config` reads a file,
a variable or an argument. The names are those of the TOML file, table by table (`config/polytls.toml`
documents each one; a test holds the two together). Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Mode(Enum):
    """What happens to a tunnel."""

    MITM = "mitm"
    PASSTHROUGH = "passthrough"


class SniPolicy(Enum):
    """What a client's hello without a server name means. A differing one is always refused."""

    ACCEPT_ABSENT = "accept-absent"
    REQUIRE = "require"


class AlpnPolicy(Enum):
    """Which protocols are offered upstream.

    NARROW: those that both the profile and the client speak, in the profile's order.
    STRICT: the profile's list untouched; where the client cannot follow the choice, fail closed.
    """

    NARROW = "narrow"
    STRICT = "strict"


class NonTls(Enum):
    """What happens in MITM mode to a client that does not begin with a ClientHello."""

    CLOSE = "close"
    RESET = "reset"
    RELAY = "relay"


class MirrorUnsupported(Enum):
    """What happens, with the profile `mirror`, to a hello that holds what the engine cannot send.

    REFUSE: the tunnel fails, naming it. DROP: it is left out where the rest still makes sense.
    """

    REFUSE = "refuse"
    DROP = "drop"


class LeafKey(Enum):
    """The key of the leaf shown to clients. AUTO: ECDSA P-256 where the client can, else RSA-2048."""

    AUTO = "auto"
    ECDSA = "ecdsa"
    RSA = "rsa"


class RootKey(Enum):
    """The key of a root CA that is created. RSA: RSA-2048, which every trust store takes. ECDSA: P-256, which
    signs a leaf several times as fast: for fleets that visit many names once."""

    RSA = "rsa"
    ECDSA = "ecdsa"


class LogFormat(Enum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is an IP address in text form, without brackets; port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """[proxy.listen]"""

    address: Address = Address("127.0.0.1", 8080)
    backlog: int = 1024


@dataclass(frozen=True, slots=True)
class MitmSettings:
    """[proxy.mitm]"""

    enabled: bool = True
    sni: SniPolicy = SniPolicy.ACCEPT_ABSENT
    alpn: AlpnPolicy = AlpnPolicy.NARROW
    non_tls: NonTls = NonTls.CLOSE
    mirror_unsupported: MirrorUnsupported = MirrorUnsupported.REFUSE


@dataclass(frozen=True, slots=True)
class EchRule:
    """One of [[proxy.upstream.ech]]: names, or "*.name", and the ECHConfigList they are asked for with, or
    the file that has it."""

    hosts: tuple[str, ...]
    config_list: bytes = b""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """[proxy.upstream]

    `default_upstream` ("host:port") is a lab override: every tunnel is dialled there, whatever its
    CONNECT names; the CONNECT host stays what SNI, leaf and verification go by. `resolve` maps a lower-case
    name, or "*.name", to an address ("ADDR", "ADDR:PORT" or "[V6]:PORT") without DNS. `ech`: rules for
    Encrypted ClientHello; None: there are none.
    """

    default_upstream: str | None = None
    default_profile: str = "default"
    ca_file: Path | None = None
    insecure_skip_verify: bool = False
    verify_hostname: bool = True
    resolve: tuple[tuple[str, str], ...] = ()
    dns_cache_ttl: float = 30.0
    ech: tuple[EchRule, ...] | None = None


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """[proxy.certificate]

    The passphrase of the root key comes from a variable or a file, never from the configuration
    itself. `cache_ttl` and `cache_size` bound the leaf cache.
    """

    ca_key_path: Path = Path("ca/private.key")
    ca_cert_path: Path = Path("ca/certificate.pem")
    ca_key_passphrase_env: str | None = None
    ca_key_passphrase_file: Path | None = None
    cache_ttl: float = 3600.0
    cache_size: int = 10_000
    root_key: RootKey = RootKey.RSA
    leaf_key: LeafKey = LeafKey.AUTO
    leaf_days: int = 90


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """[proxy.timeouts] in seconds; 0 means none, where that is allowed (idle, half_closed, lifetime)."""

    head: float = 10.0
    resolve: float = 10.0
    connect: float = 30.0
    hello: float = 10.0
    handshake: float = 15.0
    idle: float = 0.0
    half_closed: float = 120.0
    lifetime: float = 0.0
    drain: float = 10.0


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """[proxy.limits] `tunnels`: open tunnels at once; more are answered 503."""

    tunnels: int = 20_000


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """[engine] `threads` 0: one loop thread for each core that this process may use but one, which is
    Python's, and at least one; of several workers each has its share of the cores, and leaves one of them to
    its Python. `workers`: processes that share the address; `limits.tunnels` is divided among them, each has
    its own caches."""

    threads: int = 0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """[profiles] `directory` of profiles of one's own, beside the built-in ones. (Its tables are
    `Settings.profile_tables`.)"""

    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """[log] `fingerprint`: tell the JA4 of the client's hello, and of the one upstream was sent (MITM)."""

    format: LogFormat = LogFormat.TEXT
    fingerprint: bool = False


class OtlpProtocol(Enum):
    """How telemetry travels; the values are those of OTEL_EXPORTER_OTLP_PROTOCOL."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """[telemetry] Nothing is exported, or even imported, without an `endpoint` (see
    `polytls.telemetry.otlp.plan`).

    `endpoint` is a collector's base URL. `sampling` is the share of traces that are exported where the caller
    has not decided. `instance` None: a fresh identifier for each start. `hosts_in_metrics`: CONNECT hosts
    become an attribute of metrics.
    """

    enabled: bool = True
    endpoint: str | None = None
    protocol: OtlpProtocol = OtlpProtocol.HTTP
    headers_file: Path | None = None
    certificate_file: Path | None = None
    timeout: float = 10.0
    traces: bool = True
    metrics: bool = True
    logs: bool = True
    sampling: float = 1.0
    metric_interval: float = 60.0
    hosts_in_metrics: bool = False
    service_name: str = "polytls"
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. `profile_tables` holds the [profiles.NAME] tables as parsed TOML; `polytls.profiles`
    gives them meaning. `source` names where they came from, for its errors."""

    listen: ListenSettings = field(default_factory=ListenSettings)
    mitm: MitmSettings = field(default_factory=MitmSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    certificate: CertificateSettings = field(default_factory=CertificateSettings)
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    log: LogSettings = field(default_factory=LogSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    profiles: ProfileSettings = field(default_factory=ProfileSettings)
    profile_tables: dict[str, dict[str, object]] = field(default_factory=dict)
    source: str = "defaults"

    @property
    def mode(self) -> Mode:
        return Mode.MITM if self.mitm.enabled else Mode.PASSTHROUGH
