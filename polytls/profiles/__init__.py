"""Upstream profiles: what a client offers, as data.

`catalog.Catalog` holds every profile, built-in and configured; each is one `spec.HelloSpec`. `parse` turns
TOML into specs by the descriptors in `knobs`, `show` turns them back, `boringssl` lists what the library
can really do, and `builtin/` has one file for each client. Pure apart from reading those files.
"""

from __future__ import annotations

from polytls.profiles.catalog import Catalog
from polytls.profiles.entries import MIRROR
from polytls.profiles.spec import HelloSpec

__all__ = ["MIRROR", "Catalog", "HelloSpec"]
