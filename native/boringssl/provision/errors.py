"""The one failure of this package, for the person who builds."""

from __future__ import annotations


class ProvisionError(Exception):
    """BoringSSL cannot be provided. The message is one sentence: what happened and what to do."""
