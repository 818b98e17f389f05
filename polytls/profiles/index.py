"""The built-in profiles and their aliases: a start does not have to read all their files.

Written by tests/golden/profiles.py, and held equal to the files by a test.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILTINS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "chrome-100": (),
        "chrome-101": (),
        "chrome-104": (),
        "chrome-107": (),
        "chrome-110": (),
        "chrome-116": (),
        "chrome-119": (),
        "chrome-120": (),
        "chrome-123": (),
        "chrome-124": (),
        "chrome-131": (),
        "chrome-131-android": (),
        "chrome-133": (),
        "chrome-136": (),
        "chrome-142": ("chrome-143-macos-arm64",),
        "chrome-145": (),
        "chrome-146": (),
        "chrome-150": (),
        "chrome-151": (),
        "chrome-151-macos": (),
        "chrome-152": ("chrome",),
        "chrome-152-macos": (),
        "chrome-99": (),
        "chrome-99-android": (),
        "chromium-156": ("chromium",),
        "curl-7.88": ("curl",),
        "default": (),
        "edge-101": ("edge",),
        "edge-99": (),
        "firefox-133": (),
        "firefox-135": (),
        "firefox-144": ("firefox-145-macos-arm64",),
        "firefox-147": (),
        "firefox-153": (),
        "firefox-154": (),
        "firefox-155": ("firefox",),
        "firefox-esr-153": ("firefox-esr",),
        "gnutls-3.7": ("gnutls",),
        "go-1.26": ("go",),
        "java-17": ("java",),
        "java-17-urlconnection": (),
        "node-20": ("node",),
        "openssl-3.0": ("openssl",),
        "python-3.11": ("python",),
        "requests-2.34": ("requests",),
        "safari-15.3": (),
        "safari-15.5": (),
        "safari-17.0": (),
        "safari-17.2-ios": (),
        "safari-18.0": (),
        "safari-18.0-ios": (),
        "safari-18.4": (),
        "safari-18.4-ios": (),
        "safari-26.0": (),
        "safari-26.0-ios": (),
        "safari-26.0.1": ("safari-26.2-macos-arm64",),
        "safari-27.0": ("safari",),
        "safari-27.0-ios": (),
        "tor-14.5": ("tor",),
        "wget-1.21": ("wget",),
    }
)
"""Name -> aliases. `builtin/NAME.toml` is the profile."""
