"""A build backend that builds nothing: the package client's metadata step, made inert.

Theory of operation
-------------------
`pip download` insists on asking a source distribution's own build backend for its metadata, which
means installing that backend and running the package's setup script. Only the archive is wanted. The
package names `setuptools.build_meta` as its backend, so `provision.source` puts this directory first
on the path for that one command: nothing else is downloaded and no code of the package runs. A source
distribution carries its metadata in `PKG-INFO`, which is all that is answered here. The archive's
checksum is verified by the client before this runs and by ourselves afterwards.
"""

from __future__ import annotations

import shutil
from email.parser import HeaderParser
from pathlib import Path


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Nothing is needed to build nothing (PEP 517)."""
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    """Copies `PKG-INFO` of the unpacked archive (the working directory) as the metadata (PEP 517)."""
    info = HeaderParser().parsestr(Path("PKG-INFO").read_text(encoding="utf-8"), headersonly=True)
    name = f"{info['Name']}-{info['Version']}.dist-info"
    directory = Path(metadata_directory, name)
    directory.mkdir()
    shutil.copyfile("PKG-INFO", directory / "METADATA")
    return name
