"""Certificate decompression (RFC 8879): the one call from a native thread into Python.

It happens at most once a handshake and holds a loop thread meanwhile, so that it does nothing but
decompress. The output is bounded beforehand: the engine refuses an announced size above
PTL_MAX_CERTIFICATE_BYTES, and what does not come out at exactly the announced size is refused here.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from polytls.engine._native import ffi, lib

if TYPE_CHECKING:
    from polytls.engine._native import CData

ZLIB, BROTLI, ZSTD = 1, 2, 3  # RFC 8879 §7.3


def decompress(algorithm: int, data: bytes, size: int) -> bytes | None:
    """`data` undone, if that gives exactly `size` bytes; else None. Never makes much more than `size`."""
    try:
        match algorithm:
            case 1:
                return _exactly(size, _zlib(data, size))
            case 2:
                return _exactly(size, _brotli(data, size))
            case 3:
                return _exactly(size, _zstd(data, size))
            case _:
                return None
    except (zlib.error, ValueError, EOFError):
        return None


def _exactly(size: int, out: bytes | None) -> bytes | None:
    return out if out is not None and len(out) == size else None


def _zlib(data: bytes, size: int) -> bytes | None:
    inflater = zlib.decompressobj()
    out = inflater.decompress(data, size + 1)
    return out if inflater.eof and not inflater.unused_data else None


def _brotli(data: bytes, size: int) -> bytes | None:
    import brotli  # imported at the first use: few origins compress

    decoder = brotli.Decompressor()
    out = bytearray()
    try:
        # `output_buffer_limit` is a hint which a block may exceed; the loop stops at the first excess.
        out += decoder.process(data, output_buffer_limit=size + 1)
        while not decoder.is_finished() and len(out) <= size:
            more = decoder.process(b"", output_buffer_limit=size + 1 - len(out))
            if not more:
                return None  # the stream is cut
            out += more
    except brotli.error:
        return None
    return bytes(out) if decoder.is_finished() else None


def _zstd(data: bytes, size: int) -> bytes | None:
    import zstandard

    try:
        # The window is bounded as well: it is memory that a sender can ask for (RFC 8878 §3.1.1.1.2).
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(
            data, read_across_frames=False
        )
        out = reader.read(size + 1)
        if len(out) == size and reader.read(1):
            return None
    except zstandard.ZstdError:
        return None
    return out


@ffi.def_extern(name="polytls_decompress", error=0)
def _from_native(algorithm: int, data: CData, data_len: int, out: CData, out_len: int) -> int:
    plain = decompress(algorithm, ffi.buffer(data, data_len)[:], out_len)
    if plain is None:
        return 0
    ffi.memmove(out, plain, out_len)
    return 1


def install() -> None:
    """Makes the engine use `decompress`. Doing it again changes nothing."""
    lib.ptl_set_decompressor(lib.polytls_decompress)
