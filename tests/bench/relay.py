"""A CONNECT passthrough in forty lines of asyncio: what Python alone costs when it moves the bytes itself."""

from __future__ import annotations

import asyncio
import contextlib
import sys

BACKLOG = 4096
PIECE = 65536


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    upstream = None
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        answers, upstream = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        await asyncio.gather(pipe(reader, upstream), pipe(answers, writer))
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
        pass
    finally:
        for end in (writer, upstream):
            if end is not None:
                end.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(tunnel, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
