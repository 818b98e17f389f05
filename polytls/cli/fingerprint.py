"""``polytls fingerprint``: the fingerprints of every ClientHello in a file."""

from __future__ import annotations

import argparse
import json
import sys

_EPILOG = """\
examples:
  polytls fingerprint handshakes.pcapng
  polytls fingerprint --json hello.bin | jq -r .ja4
  tcpdump -w - -c 200 'tcp port 443' | polytls fingerprint -

FILE holds ClientHellos as TLS records or bare messages, hexadecimal text of either, a packet capture (pcap,
pcapng: every TCP connection in it), or JSON as `polytls capture --json` prints it. QUIC is not read.

exit codes: 0 all of them, 1 one could not be fingerprinted, 2 no ClientHello in it
"""


def add_to(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "fingerprint",
        help="JA3 and JA4 of the ClientHellos in a file",
        description="Print JA3, JA3N, JA4, JA4_r, JA4_o and JA4_ro of every ClientHello in a file, and what"
        " they are made of.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="what to read; -: standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each ClientHello")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a block, or a line of JSON, for each hello. Raises `UserError`, OSError."""
    from polytls.capture.report import fingerprint_text
    from polytls.capture.sources import hellos_from
    from polytls.fingerprint.report import fingerprint
    from polytls.wire.client_hello import HelloError

    code = 0
    for number, captured in enumerate(hellos_from(args.file, read_stdin)):
        second = " (answers a HelloRetryRequest)" if captured.second else ""
        try:
            if args.json:
                report = fingerprint(captured.hello).as_dict()
                about = {"where": captured.where, "second": captured.second}
                print(json.dumps({**about, **report, "hello": captured.raw.hex()}))
            else:
                text = fingerprint_text(captured.hello)
                print("\n" * bool(number) + f"{'found in':<22}{captured.where}{second}\n{text}")
        except HelloError as problem:
            print(f"polytls: error: {captured.where}: {problem}", file=sys.stderr)
            code = 1
    return code


def read_stdin(limit: int) -> bytes:
    """At most `limit` bytes of standard input."""
    return sys.stdin.buffer.read(limit)
