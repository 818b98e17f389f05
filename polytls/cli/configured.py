"""``--config``, which most verbs have, and the variable that stands in for it.

A container names its configuration once, in POLYTLS_CONFIG, so that the proxy, its health check and
whatever is run beside them (``polytls ca export``) go by the same file. The option goes over the variable.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

VARIABLE = "POLYTLS_CONFIG"


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--config FILE`` to a verb; `text` is its help."""
    named = os.environ.get(VARIABLE)  # an empty variable counts as not set, as those of the keys do
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=Path(named) if named else None, help=text
    )
