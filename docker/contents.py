"""Prints what is in the image, as Markdown: the packages of Debian and of Python, with their versions.

Run by docker/Dockerfile with the image's own Python, in the image. It looks at what is installed, not at
what was asked for.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path


def main() -> None:
    """Write the list to stdout."""
    debian = Path("/etc/debian_version").read_text(encoding="ascii").strip()
    version = ".".join(map(str, sys.version_info[:3]))
    print("# What is in the image\n")
    print(f"Debian {debian}, Python {version}. Made while the image was built, by docker/contents.py.\n")
    print("## Python packages\n")
    _table(sorted({(each.name.lower(), each.version) for each in distributions(path=_own_path())}))
    print("\nBoringSSL, with the patches in native/boringssl/patches, is part of polytls.\n")
    print("## Debian packages\n")
    _table(_debian_packages())


def _own_path() -> list[str]:
    """Where the environment's packages are, without those of Debian's Python."""
    return [each for each in sys.path if each.startswith(sys.prefix)]


def _debian_packages() -> list[tuple[str, str]]:
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(name, version) for name, _, version in (line.partition(" ") for line in listed.splitlines())]


def _table(rows: list[tuple[str, str]]) -> None:
    print("| package | version |\n|---|---|")
    for name, version in rows:
        print(f"| {name} | {version} |")


if __name__ == "__main__":
    main()
