"""How a client is told what its tunnel failed of: `refuse` says what, here it is sent. A client that does not
listen changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytls.errors import ProxyError, Stage
from polytls.policy.hello import HTTP11, speaks_http11
from polytls.proxy import recording
from polytls.proxy.agree import leaf_of
from polytls.proxy.refuse import Answer, Close, Page, page_reply, refusal

if TYPE_CHECKING:
    from polytls.proxy.snapshot import Snapshot
    from polytls.proxy.tracker import Tunnel

PAGE_SECONDS = 5.0
"""For the client's handshake, its request and our page, each: only a failure is at the end of it."""
MAX_PAGE_HEAD_BYTES = 65536
"""Of the request that a page answers. It is an origin's request, cookies and all, not a CONNECT."""
TELL_SECONDS = 5.0
"""For the kernel to take a reply of a few hundred bytes: a client that does not read is not waited for."""


async def tell(tunnel: Tunnel, error: ProxyError, snapshot: Snapshot) -> None:
    """Show the client what `refuse` has for this failure, and close. A client that does not listen any
    more changes nothing: the failure is the one it was."""
    hello = tunnel.hello
    shown = refusal(
        error,
        tunnel.stage,
        non_tls=snapshot.settings.mitm.non_tls,
        http11=hello is not None and speaks_http11(hello.alpn),
    )
    try:
        match shown:
            case Answer(status, data):
                tunnel.record.reply = status
                await tunnel.client.write(data, timeout=TELL_SECONDS)
                tunnel.client.close()
            case Page(alert):
                if not await _show_page(tunnel, error, snapshot):
                    tunnel.client.close(alert=alert)
            case Close(alert, reset):
                tunnel.client.close(alert=alert, reset=reset)
    except ProxyError:
        tunnel.client.close()


async def _show_page(tunnel: Tunnel, error: ProxyError, snapshot: Snapshot) -> bool:
    """Complete the client's handshake and answer its request with the failure. False: there is no leaf to do
    so with, and the client still waits for an answer to its hello. Raises `ProxyError` after that."""
    mitm, hello, client = snapshot.interception, tunnel.hello, tunnel.client
    if mitm is None or hello is None:
        return False
    if tunnel.upstream is not None:
        tunnel.upstream.close()
    try:
        credential = await leaf_of(tunnel)
    except ProxyError:
        return False
    tunnel.stage = Stage.CLIENT_TLS
    facts = await client.accept_tls(
        mitm.server_context, credential, alpn=None if hello.alpn is None else HTTP11, timeout=PAGE_SECONDS
    )
    recording.client_tls(tunnel.record, facts)
    head = await client.read_head(MAX_PAGE_HEAD_BYTES, timeout=PAGE_SECONDS)
    await client.write(page_reply(error, head), timeout=PAGE_SECONDS)
    client.close()
    return True
