"""Who leads a tunnel, and when it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polytls.proxy.tracker import Tracker, Tunnel
from tests.engine.harness import client_of, running

if TYPE_CHECKING:
    from polytls.engine import Accepted


async def _nothing() -> None: ...


def _tunnel(tracker: Tracker, accepted: Accepted) -> Tunnel:
    return tracker.begin(accepted, admitted=True)


def test_a_task_that_is_done_ends_no_tunnel_that_another_leads() -> None:
    """A task sets a tunnel off and is done; what it set off fails, and is led on by a second task, before the
    event loop has told the end of the first."""

    async def main() -> None:
        over: list[Tunnel] = []
        async with running() as engine, client_of(engine) as client:
            tracker = Tracker(over.append)
            tunnel = _tunnel(tracker, client.accepted)
            first, second = asyncio.create_task(_nothing()), asyncio.create_task(_nothing())
            tracker.lead(tunnel, first)
            tunnel.relaying = True  # from here on the engine has it all
            await first
            tunnel.relaying = False  # it has failed
            tracker.lead(tunnel, second)
            tracker.led(tunnel, first)
            assert over == []
            assert tracker.live == {tunnel: second}
            await second
            tracker.led(tunnel, second)
            assert over == [tunnel]
            tracker.end(tunnel)
            tracker.led(tunnel, second)  # it is not alive any more
            assert over == [tunnel]
            assert tracker.admitted == 0

    asyncio.run(main())
