"""Every failure PolyTLS can name, in one tree and one vocabulary.

Theory of operation
-------------------
A failure is told apart by four things: the *side* it concerns, the *stage* of the tunnel's life at
which it happened, its *kind* (one word, stable, used alike in the log, the metric label and the reply
to the client) and a *detail*, one sentence for a person that says what happened and what to do.

`Kind` is the whole vocabulary. What the client is shown for a kind is decided in one place only,
`polytls.proxy.refuse`. Errors made by whoever starts the program (a wrong key in a file, a CA key that
does not match) are `UserError`: they end the program with exit code 2 and one sentence, no traceback.

Details may name hosts, addresses, files and certificates. They never hold payload, header values,
credentials or key bytes.
"""

from __future__ import annotations

from enum import Enum


class Side(Enum):
    """Whose doing a failure is."""

    PROXY = "proxy"
    CLIENT = "client"
    UPSTREAM = "upstream"


class Stage(Enum):
    """Where in the life of a tunnel (docs/architecture.md, section 1) a failure happened."""

    HEAD = "head"
    AUTH = "auth"
    ACCESS = "access"
    LIMITS = "limits"
    CONNECT = "connect"
    HELLO = "hello"
    UPSTREAM_TLS = "upstream_tls"
    LEAF = "leaf"
    CLIENT_TLS = "client_tls"
    ALPN = "alpn"
    RELAY = "relay"


class Kind(Enum):
    """What happened. The value is the log field, the metric label and the word in the reply."""

    # head
    NOT_CONNECT = "not_connect"
    MALFORMED_HEAD = "malformed_head"
    BAD_AUTHORITY = "bad_authority"
    UNKNOWN_PROFILE = "unknown_profile"
    HEAD_TOO_LARGE = "head_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_CLOSED = "head_closed"  # the client went away before its head was whole
    # limits
    TOO_MANY_TUNNELS = "too_many_tunnels"
    DRAINING = "draining"
    OUT_OF_SOCKETS = "out_of_sockets"
    # resolve and connect
    NAME_NOT_FOUND = "name_not_found"
    RESOLVE_FAILED = "resolve_failed"
    RESOLVE_TIMEOUT = "resolve_timeout"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_UNREACHABLE = "connect_unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    # the client's ClientHello
    NOT_TLS = "not_tls"
    HELLO_MALFORMED = "hello_malformed"
    HELLO_TOO_LARGE = "hello_too_large"
    HELLO_TIMEOUT = "hello_timeout"
    CLIENT_CLOSED = "client_closed"  # the client went away before the relay began
    SNI_MISMATCH = "sni_mismatch"
    SNI_MISSING = "sni_missing"
    ALPN_MISMATCH = "alpn_mismatch"
    HELLO_NOT_REPRODUCIBLE = "hello_not_reproducible"  # the profile `mirror` cannot repeat it
    # upstream TLS
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_SELF_SIGNED = "certificate_self_signed"
    CERTIFICATE_UNKNOWN_ROOT = "certificate_unknown_root"
    CERTIFICATE_WRONG_HOST = "certificate_wrong_host"
    CERTIFICATE_WRONG_USAGE = "certificate_wrong_usage"
    CERTIFICATE_INVALID = "certificate_invalid"  # any other verification failure
    UPSTREAM_ALERT = "upstream_alert"
    UPSTREAM_PROTOCOL_VERSION = "upstream_protocol_version"
    UPSTREAM_UNSUPPORTED_CHOICE = "upstream_unsupported_choice"
    UPSTREAM_NOT_TLS = "upstream_not_tls"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_HANDSHAKE_TIMEOUT = "upstream_handshake_timeout"
    UPSTREAM_TLS_ERROR = "upstream_tls_error"
    ECH_REJECTED = "ech_rejected"  # and, where upstream named other configs, those too
    ECH_UNUSABLE = "ech_unusable"  # a config is set, and the profile cannot use it
    # leaf
    LEAF_FAILED = "leaf_failed"
    # client TLS
    CLIENT_REJECTS_LEAF = "client_rejects_leaf"
    CLIENT_ALERT = "client_alert"
    CLIENT_NO_SHARED_PARAMETERS = "client_no_shared_parameters"
    CLIENT_HANDSHAKE_TIMEOUT = "client_handshake_timeout"
    CLIENT_TLS_ERROR = "client_tls_error"
    # relay
    CLIENT_RESET = "client_reset"
    UPSTREAM_RESET = "upstream_reset"
    RELAY_TLS_ERROR = "relay_tls_error"
    IDLE_TIMEOUT = "idle_timeout"
    LIFETIME = "lifetime"
    DRAINED = "drained"
    # anywhere
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"


class PolytlsError(Exception):
    """Root of everything PolyTLS raises on purpose."""


class ProxyError(PolytlsError):
    """One tunnel failed, in a way that has a name.

    `detail` is one sentence for a person, without a final line break. `alert` is the TLS alert
    number (RFC 8446 §6) that arrived or that should be sent, where one is involved. `hello`: the records of
    the ClientHello that upstream was sent, where they were asked for.
    """

    hello: bytes | None = None
    hello_begun = False
    """HELLO_TIMEOUT: some bytes of a ClientHello had come."""

    def __init__(
        self, side: Side, stage: Stage, kind: Kind, detail: str, *, alert: int | None = None
    ) -> None:
        super().__init__(detail)
        self.side = side
        self.stage = stage
        self.kind = kind
        self.detail = detail
        self.alert = alert

    def __repr__(self) -> str:
        where = f"{self.side.value}/{self.stage.value}/{self.kind.value}"
        return f"ProxyError({where}: {self.detail})"


class EchRejectedError(ProxyError):
    """Upstream does not take this Encrypted ClientHello, and has proven, by a certificate for the config's
    public name, that it may say so (RFC 9849 §6.1.6).

    `retry_configs` is the ECHConfigList it gave to try once more with; empty: it gave none.
    """

    def __init__(self, retry_configs: bytes) -> None:
        detail = "upstream rejected ECH and offers no other config to try"
        super().__init__(Side.UPSTREAM, Stage.UPSTREAM_TLS, Kind.ECH_REJECTED, detail)
        self.retry_configs = retry_configs


class UserError(PolytlsError):
    """Whoever runs the program can mend this: exit code 2, one sentence, no traceback."""


class ConfigError(UserError):
    """A setting is wrong. The sentence names the source, the key path and what is allowed.

    `source` is a file name, an environment variable or a command-line option; `key` is a dotted path
    such as ``proxy.listen.address`` (empty where the whole source is at fault).
    """

    def __init__(self, source: str, key: str, problem: str) -> None:
        super().__init__(f"{source}: {key}: {problem}" if key else f"{source}: {problem}")
        self.source = source
        self.key = key
        self.problem = problem


class ProfileError(ConfigError):
    """A profile is wrong: an unknown key, a bad value, an unknown name."""


class CAError(UserError):
    """The root CA cannot be used: unreadable, mismatched, expired, or not a CA."""


class EngineError(PolytlsError):
    """The native engine was used wrongly (a stale handle, a closed engine). A defect of ours."""
