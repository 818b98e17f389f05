"""Certificate decompression: what was compressed comes back, everything else is refused, and a small input
never makes much memory."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from polytls.engine.decompress import BROTLI, ZLIB, ZSTD, decompress

COMPRESSORS: dict[int, Callable[[bytes], bytes]] = {
    ZLIB: zlib.compress,
    BROTLI: partial(brotli.compress, quality=5),  # the default takes seconds for a bomb
    ZSTD: zstandard.ZstdCompressor().compress,
}
ALL = pytest.mark.parametrize("algorithm", COMPRESSORS)
CHAIN = bytes(range(256)) * 20
"""About as long as a certificate chain."""
MAX_CERTIFICATE_BYTES = 102_400


@ALL
@given(data=st.binary(min_size=1, max_size=5000))
def test_what_was_compressed_comes_back(algorithm: int, data: bytes) -> None:
    assert decompress(algorithm, COMPRESSORS[algorithm](data), len(data)) == data


@ALL
@pytest.mark.parametrize("size", [1, 16384, MAX_CERTIFICATE_BYTES])
def test_sizes(algorithm: int, size: int) -> None:
    data = (CHAIN * 21)[:size]
    assert decompress(algorithm, COMPRESSORS[algorithm](data), size) == data


def test_zstd_without_the_size_in_its_header() -> None:
    """As streaming senders write it."""
    compressed = zstandard.ZstdCompressor(write_content_size=False).compress(CHAIN)
    assert decompress(ZSTD, compressed, len(CHAIN)) == CHAIN


@ALL
@pytest.mark.parametrize("change", [-5000, -1, 1, 5000])
def test_another_size_than_announced_is_refused(algorithm: int, change: int) -> None:
    assert decompress(algorithm, COMPRESSORS[algorithm](CHAIN), len(CHAIN) + change) is None


@ALL
def test_a_stream_that_is_cut_is_refused(algorithm: int) -> None:
    compressed = COMPRESSORS[algorithm](CHAIN)
    for size in range(len(compressed)):
        assert decompress(algorithm, compressed[:size], len(CHAIN)) is None, size


@ALL
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", None])
def test_bytes_after_the_end_are_refused(algorithm: int, garbage: bytes | None) -> None:
    """One byte, several, or a whole second stream: RFC 8879 §4 knows one."""
    compressed = COMPRESSORS[algorithm](CHAIN)
    assert decompress(algorithm, compressed + (garbage or compressed), len(CHAIN)) is None


@ALL
@given(garbage=st.binary(max_size=300), size=st.integers(1, 2000))
def test_garbage_is_refused_or_has_the_size_asked_for(algorithm: int, garbage: bytes, size: int) -> None:
    out = decompress(algorithm, garbage, size)
    assert out is None or len(out) == size


@ALL
def test_a_bomb_does_not_go_off(algorithm: int) -> None:
    bomb = COMPRESSORS[algorithm](bytes(1 << 27))
    decompress(algorithm, bomb, 10)  # imports are not what is measured
    tracemalloc.start()
    try:
        assert decompress(algorithm, bomb, MAX_CERTIFICATE_BYTES) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A window of zlib or zstd and a block of brotli come on top of the certificate.
    assert peak < 20_000_000


def test_an_unknown_algorithm_is_refused() -> None:
    assert decompress(0, b"", 0) is None
    assert decompress(4, zlib.compress(CHAIN), len(CHAIN)) is None
