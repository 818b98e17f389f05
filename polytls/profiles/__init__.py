"""Upstream profiles: what a client offers, as data.

`catalog.Catalog` holds every profile, built-in and one's own; each is one `spec.HelloSpec`. `parse` turns
TOML into specs by the descriptors in `knobs`, `show` turns them back, `boringssl` lists what the library
can really do, and `builtin/` has one file for each client. `learn` and `fill` make profiles of captures and
of fingerprints' texts, `http2` says how a client begins HTTP/2. Pure apart from reading those files and, in
`directory`, those of one's own.
"""

from __future__ import annotations

from polytls.profiles.catalog import Catalog
from polytls.profiles.entries import MIRROR
from polytls.profiles.spec import HelloSpec

__all__ = ["MIRROR", "Catalog", "HelloSpec"]
