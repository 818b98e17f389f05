"""The built extension module: what it exports, and that it lives beside other TLS libraries."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import subprocess
import sys

import pytest

# Each use is enough to have the library's own TLS code run, not merely be loaded.
USES = {
    "ssl": "import ssl; ssl.create_default_context().get_ciphers()",
    "cryptography": (
        "from cryptography.hazmat.primitives.asymmetric import ec; ec.generate_private_key(ec.SECP256R1())"
    ),
    "grpc": "import grpc; grpc.secure_channel('127.0.0.1:1', grpc.ssl_channel_credentials()).close()",
    "polytls": (
        "from polytls.engine._native import ffi, lib; "
        "assert lib.ptl_abi_version() == lib.PTL_ABI_VERSION; "
        "assert b'BoringSSL' in ffi.string(lib.ptl_versions())"
    ),
}


@pytest.mark.parametrize("first", USES)
def test_works_in_one_process_beside_other_tls_libraries(first: str) -> None:
    order = [first, *(name for name in USES if name != first)]
    # Twice around, so that each one is used again after all of them have been set up.
    program = "\n".join(USES[name] for name in itertools.chain(order, order))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_serves_every_newer_python() -> None:
    spec = importlib.util.find_spec("polytls.engine._native")
    assert spec is not None
    assert spec.origin is not None
    assert ".abi3." in spec.origin


@pytest.mark.parametrize(
    "symbol", ["SSL_new", "SSL_CTX_new", "EVP_sha256", "OPENSSL_malloc", "ptl_abi_version"]
)
def test_lets_no_symbol_out(symbol: str) -> None:
    spec = importlib.util.find_spec("polytls.engine._native")
    assert spec is not None
    module = ctypes.PyDLL(spec.origin)
    assert module.PyInit__native is not None
    with pytest.raises(AttributeError):
        getattr(module, symbol)
