"""PolyTLS: an explicit HTTP CONNECT proxy whose upstream TLS handshake is the one of a chosen client.

Python decides, native code moves bytes. `polytls.proxy.session` is the life of a tunnel, `polytls.app` puts
the parts together, `polytls.cli` is the command line. Importing this package costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"
