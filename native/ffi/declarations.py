"""Takes the C declarations that Python sees out of `native.h`, and holds the committed copy to it.

Theory of operation
-------------------
`native.h` is the one definition of the C ABI. What lies between its two marker lines is what Python may
call; cffi wants that text without comments and preprocessor lines, with `#define NAME 3` turned into
`#define NAME ...` (the compiler fills in the value). The extracted text is also committed as
`declarations.txt`, so that a change of the ABI shows as such in a review; `--check` fails when the two
have drifted apart and `--write` brings the text up to date.

Not C at large is understood but the plain C of that header: comments, declarations and integer
constants. Anything else that the preprocessor would see is refused rather than dropped, because
dropping half an `#if` would leave declarations that nobody compiled.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

BEGIN = "/* ffi: begin */"
END = "/* ffi: end */"

_HERE = Path(__file__).resolve().parent
HEADER = _HERE.parent / "include" / "polytls" / "native.h"
DECLARATIONS = _HERE / "declarations.txt"

_PREAMBLE = "/* Taken from native/include/polytls/native.h by native/ffi/declarations.py; do not edit. */\n\n"
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_CONSTANT = re.compile(r"#\s*define\s+([A-Za-z_]\w*)\s+\(?\s*-?\s*(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*\s*\)?\s*$")


class DeclarationError(Exception):
    """The header cannot be read. The message is one sentence: what is wrong and where."""


def extract(header: str) -> str:
    """The declarations of the header's marked part as cffi reads them, one blank line at most between.

    Raises DeclarationError if the markers are not there once each and in order, or if the part holds a
    preprocessor line that is no integer constant.
    """
    if header.count(BEGIN) != 1 or header.count(END) != 1 or header.index(BEGIN) > header.index(END):
        raise DeclarationError(f"native.h must hold the line {BEGIN} once and after it {END} once.")
    part = header[header.index(BEGIN) + len(BEGIN) : header.index(END)]
    lines = [_line(line.rstrip()) for line in _COMMENT.sub(" ", part).splitlines()]
    text = "\n".join(lines)
    if re.search(r'extern\s+"C"', text):
        raise DeclarationError(
            '`extern "C"` in native.h must open before the marked part and close after it.'
        )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _line(line: str) -> str:
    if not line.lstrip().startswith("#"):
        return line
    constant = _CONSTANT.fullmatch(line.strip())
    if constant is None:
        raise DeclarationError(
            f"`{line.strip()}` in the marked part of native.h is no integer constant; move it out."
        )
    return f"#define {constant[1]} ..."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail if the committed text has drifted")
    action.add_argument("--write", action="store_true", help="bring the committed text up to date")
    parser.add_argument("--header", type=Path, default=HEADER)
    parser.add_argument("--declarations", type=Path, default=DECLARATIONS)
    options = parser.parse_args(arguments)
    try:
        wanted = _PREAMBLE + extract(options.header.read_text(encoding="utf-8"))
    except (OSError, DeclarationError) as error:
        print(f"polytls: error: {error}", file=sys.stderr)
        return 1
    if options.write:
        options.declarations.write_text(wanted, encoding="utf-8")
        return 0
    return _check(wanted, options.declarations)


def _check(wanted: str, declarations: Path) -> int:
    committed = declarations.read_text(encoding="utf-8") if declarations.is_file() else ""
    if committed == wanted:
        return 0
    difference = difflib.unified_diff(
        committed.splitlines(keepends=True), wanted.splitlines(keepends=True), declarations.name, "native.h"
    )
    sys.stderr.writelines(difference)
    print(
        f"polytls: error: {declarations.name} has drifted from native.h; "
        "run `make declarations` and commit the result.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
