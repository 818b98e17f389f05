"""`proxy.upstream.ech`: rules that say which hosts are asked for by Encrypted ClientHello.

A rule names hosts and gives the ECHConfigList for them, in base64 as it stands in a DNS record (``ech=`` of
an HTTPS record, RFC 9460 and RFC 9849), or in a file: the bytes themselves, base64, or PEM with a block
``ECHCONFIG``. Files are read when the program starts, by `read_ech_rules`; all else is checked when the
configuration is. A list of which nothing can be used is refused in either case, since a host that was to be
hidden would not be.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from polytls.config.endpoints import RESOLVE_NAME_FORM, resolve_name
from polytls.config.kinds import Kind
from polytls.errors import ConfigError
from polytls.policy.ech import EchConfigs
from polytls.profiles.wording import WrongValueError, shown, type_of, unknown
from polytls.settings import EchRule
from polytls.wire.ech import EchConfigError, usable_ech_configs

KEY = "proxy.upstream.ech"
MAX_FILE_BYTES = 1 << 17
"""An ECHConfigList is at most 64 KiB, and base64 is a third longer."""

EXPECTS = (
    "a list of tables with hosts (a list of names) and either config_list (base64) or file (a path);"
    f" a name: {RESOLVE_NAME_FORM}"
)
_FIELDS = ("hosts", "config_list", "file")
_PEM = re.compile(rb"-----BEGIN ECHCONFIG-----([A-Za-z0-9+/=\s]*)-----END ECHCONFIG-----")


def ech_rules() -> Kind:
    """The rules. As text: ``NAME=BASE64`` or ``NAME=@PATH``, joined by commas."""
    return Kind(EXPECTS, _rules, show=lambda _: "[]", from_text=_from_text)


def read_ech_rules(rules: Sequence[EchRule], source: str) -> EchConfigs:
    """The rules with their files read. Raises `ConfigError`."""
    return EchConfigs((rule.hosts, _configs_of(rule, number, source)) for number, rule in enumerate(rules))


def _configs_of(rule: EchRule, number: int, source: str) -> bytes:
    if rule.file is None:
        return rule.config_list
    key = f"{KEY}[{number}].file"
    try:
        with rule.file.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(source, key, f"{rule.file} cannot be read ({reason})") from None
    try:
        return _checked(_unwrapped(data))
    except (WrongValueError, EchConfigError) as problem:
        raise ConfigError(source, key, f"{rule.file}: {problem}") from None


def _unwrapped(data: bytes) -> bytes:
    if len(data) >= 2 and int.from_bytes(data[:2], "big") == len(data) - 2:
        return data
    pem = _PEM.search(data)
    text = b"".join((pem[1] if pem else data).split())
    return _base64(text.decode("latin-1"))


def _rules(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        raise WrongValueError(f"got {type_of(value)}; allowed: {EXPECTS}")
    return tuple(_rule(item, number) for number, item in enumerate(value))


def _rule(item: object, number: int) -> EchRule:
    try:
        if not isinstance(item, Mapping):
            raise WrongValueError(f"got {type_of(item)}; allowed: {EXPECTS}")
        for name in item:
            if name not in _FIELDS:
                raise WrongValueError(unknown("key", str(name), _FIELDS))
        hosts, listed, file = (item.get(name) for name in _FIELDS)
        if not isinstance(hosts, (list, tuple)) or not hosts:
            raise WrongValueError(f"has no hosts; allowed: {EXPECTS}")
        if (listed is None) == (file is None):
            raise WrongValueError("needs one of config_list and file")
        names = tuple(resolve_name(_text(host)) for host in hosts)
        if file is not None:
            return EchRule(names, file=Path(_text(file)))
        return EchRule(names, config_list=_checked(_base64(_text(listed))))
    except (WrongValueError, EchConfigError) as problem:
        raise WrongValueError(f"rule {number + 1}: {problem}") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise WrongValueError(f"got {shown(value) if value == '' else type_of(value)}; allowed: {EXPECTS}")
    return value


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WrongValueError(f"{shown(text)} is not base64; allowed: an ECHConfigList in base64") from None


def _checked(configs: bytes) -> bytes:
    usable_ech_configs(configs)
    return configs


def _from_text(text: str) -> object:
    rules = []
    for part in text.split(","):
        name, equals, config = part.partition("=")
        if not equals:
            return text
        where = {"file": config[1:]} if config.startswith("@") else {"config_list": config}
        rules.append({"hosts": [name], **where})
    return rules
