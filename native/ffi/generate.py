"""Writes the C source of `polytls.engine._native` (cffi, API mode) from `native.h`.

The declarations come from the header itself, so a build can never use stale ones; `callbacks.txt` adds
what native code may call in Python. The result is compiled by `native/CMakeLists.txt` against Python's
limited API, so that one binary serves every Python from 3.10 on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cffi import FFI, CDefError

from declarations import DeclarationError, extract

MODULE = "polytls.engine._native"

_CALLBACKS = Path(__file__).resolve().parent / "callbacks.txt"


def generate(header: Path, output: Path) -> None:
    """Writes the binding's C source. Raises DeclarationError if cffi cannot read the declarations."""
    builder = FFI()
    try:
        builder.cdef(extract(header.read_text(encoding="utf-8")))
        builder.cdef(_CALLBACKS.read_text(encoding="utf-8"))
    except CDefError as error:
        raise DeclarationError(f"cffi cannot read the marked part of {header}: {error}") from error
    builder.set_source(MODULE, '#include "polytls/native.h"')
    builder.emit_c_code(str(output))
    output.touch()  # cffi leaves an unchanged file as it is, and the build tool would ask again each time


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--header", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        generate(options.header, options.output)
    except (OSError, DeclarationError) as error:
        print(f"polytls: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
