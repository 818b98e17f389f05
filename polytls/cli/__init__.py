"""The command line: ``polytls VERB``. One module a verb; this one puts them together and ends well.

Exit codes: 0 all right; 1 it failed while running (the address is in use, a file cannot be written); 2 an
option, a setting, a profile or the CA is wrong; 130 interrupted. What goes wrong is one sentence on
stderr. A traceback is a defect of ours.

Each verb imports what it needs when it runs. ``polytls --version``, alone, is answered before anything is
imported at all.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from polytls import __version__
from polytls.errors import PolytlsError, UserError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_VERSION = f"polytls {__version__}"

_EPILOG = """\
examples:
  polytls serve
      the proxy on 127.0.0.1:8080, in MITM mode, with its root CA in ./ca
  polytls serve --profile firefox --resolve '*.lab.test:10.0.0.7'
  polytls profiles list
  polytls capture --tls
      the fingerprint of whatever connects to 127.0.0.1:8443
  polytls fingerprint handshakes.pcap
  polytls ca export --out root.pem

For systems and traffic that you own or are authorised to test.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. `argv` is without the program's name; None: the process's.

    argparse itself exits (SystemExit) for --help and wrong options.
    """
    if (sys.argv[1:] if argv is None else list(argv)) == ["--version"]:
        print(_VERSION)
        return EXIT_OK
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
        if sys.stdout is not None:  # None: it was closed when we were started
            sys.stdout.flush()
    except UserError as error:
        return _failed(str(error), EXIT_USAGE)
    except PolytlsError as error:
        return _failed(str(error), EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return _failed(f"{about}{error.strerror or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _failed(sentence: str, code: int) -> int:
    print(f"polytls: error: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    import argparse

    from polytls.cli import ca, capture, check, fingerprint, profiles, serve

    parser = argparse.ArgumentParser(
        prog="polytls",
        description="An HTTP CONNECT proxy that relays TLS untouched, or terminates it and connects upstream "
        "with the TLS ClientHello of a chosen client.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_VERSION)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in (serve, check, profiles, capture, fingerprint, ca):
        verb.add_to(verbs)
    return parser
