"""Where trusted roots come from: the system's bundle, else the `certifi` package; and files of one's own."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from pathlib import Path

from polytls.engine.contexts import Trust
from polytls.errors import UserError

MAX_ROOTS_BYTES = 1 << 24
"""Of a file of roots. All the roots of the world have half a MB."""

_PEM = re.compile(
    rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----\s*(.+?)\s*-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL
)

_BEGIN = re.compile(rb"^-----BEGIN (?:TRUSTED )?CERTIFICATE-----", re.MULTILINE)

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, BSD
)


def certificates_of(pem: bytes) -> list[bytes]:
    """The DER of every certificate in a PEM text, in order. ValueError where one is not base64, or where the
    text ends in the middle of one: somebody is still writing it, and the rest would not be trusted."""
    found = []
    for match in _PEM.finditer(pem):
        try:
            found.append(base64.b64decode(b"".join(match.group(1).split()), validate=True))
        except binascii.Error as error:
            raise ValueError(f"a certificate in it is not base64: {error}") from error
    if len(_BEGIN.findall(pem)) > len(found):
        raise ValueError("it ends in the middle of a certificate; is it still being written?")
    return found


def system_bundle() -> Path:
    """The file that holds the system's roots (SSL_CERT_FILE, OpenSSL's own path, the usual places), else
    certifi's."""
    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, *_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    import certifi  # only where the system has no bundle

    return Path(certifi.where())


def load_trust(ca_file: Path | None) -> Trust:
    """The system's roots and those of `ca_file`, which is PEM. Raises UserError, naming the file."""
    certificates = _read(system_bundle())
    if ca_file is not None:
        own = _read(ca_file)
        if not own or Trust(own).num_roots != len(own):
            raise UserError(
                f"{ca_file}: holds no certificates, or one that cannot be parsed; PEM is expected"
            )
        certificates += own
    return Trust(certificates)


def read_roots(path: Path) -> bytes:
    """What a file of roots holds. Raises UserError, naming the file."""
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_ROOTS_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: trusted roots cannot be read: {error.strerror}") from error
    if len(pem) > MAX_ROOTS_BYTES:
        raise UserError(f"{path}: is larger than {MAX_ROOTS_BYTES} bytes; is it the right file?")
    return pem


def _read(path: Path) -> list[bytes]:
    try:
        return certificates_of(read_roots(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
