"""Where the passphrase of the root key comes from: an environment variable or a file, never both.

The configuration names the source and never holds the passphrase itself, so that a configuration can be
shown, logged and kept under version control. A source that is named and yields nothing is an error: going
on without it would either fail later with a worse sentence or write a new key unencrypted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytls.errors import CAError
from polytls.pki.store import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# OpenSSL, which decrypts the key, takes no longer ones (PEM_BUFSIZE - 1).
MAX_PASSPHRASE_BYTES = 1023


def read_passphrase(env_name: str | None, file: Path | None, environ: Mapping[str, str]) -> bytes | None:
    """Return the passphrase of the root key, or None where no source is named.

    `env_name` is looked up in `environ`. `file` holds the passphrase followed by at most one line break,
    which is not part of it; its permissions are held to the same rule as the key's own
    (`polytls.pki.store`).

    Raises CAError if both sources are named, or if the named one is absent, unreadable, empty or longer
    than `MAX_PASSPHRASE_BYTES`.
    """
    if env_name is not None and file is not None:
        raise CAError(
            f"the CA key passphrase has two sources, the variable {env_name} and the file {file}: name one"
        )
    if env_name is not None:
        value = environ.get(env_name)
        if value is None:
            raise CAError(
                f"the environment variable {env_name}, named as the source of the CA key passphrase, is not"
                " set: set it, or remove the setting that names it"
            )
        # surrogateescape: the octets the process was started with, whatever the locale made of them
        return _checked(value.encode("utf-8", "surrogateescape"), f"the environment variable {env_name}")
    if file is not None:
        return _checked(_without_line_break(read_secret(file, "CA key passphrase")), str(file))
    return None


def _without_line_break(data: bytes) -> bytes:
    """Drop the one line break that editors and `echo` put at the end of a file."""
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _checked(passphrase: bytes, source: str) -> bytes:
    if not passphrase:
        raise CAError(f"{source} holds an empty CA key passphrase: put the passphrase there")
    if len(passphrase) > MAX_PASSPHRASE_BYTES:
        raise CAError(
            f"{source} holds {len(passphrase)} bytes, too long for a CA key passphrase"
            f" (at most {MAX_PASSPHRASE_BYTES}): check that it is the right source"
        )
    return passphrase
