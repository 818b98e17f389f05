"""How many tunnels a process has room for, by the open files that it may have."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polytls.program import SPARE_FILES, SPARE_STREAMS, room_for
from tests.peers.serve import Serve
from tests.proxy.harness import Origin, echo
from tests.workers.harness import RefusedError, descriptors_of, open_tunnel, ping

if TYPE_CHECKING:
    from pathlib import Path

FILES = 256
TUNNELS = 48
"""Of 256 descriptors 120 are for other things than streams, and of 136 streams 40 are spare."""


@pytest.mark.parametrize("files", [0, 1, SPARE_FILES, SPARE_FILES + 3, FILES, 1024, 4096, 20_000, 1_000_000])
def test_there_are_never_more_streams_than_descriptors(files: int) -> None:
    tunnels, streams = room_for(files)
    assert tunnels >= 1
    assert 2 * tunnels < streams
    assert streams <= max(3, files - SPARE_FILES)


def test_the_room_at_some_limits() -> None:
    assert room_for(FILES) == (TUNNELS, 136)
    assert room_for(1024) == (432, 904)
    assert room_for(20_000) == ((20_000 - SPARE_FILES - SPARE_STREAMS) // 2, 20_000 - SPARE_FILES)
    assert room_for(sys.maxsize)[0] > 1_000_000


def test_beyond_the_descriptors_clients_are_told_so(tmp_path: Path) -> None:
    with (
        closing(Origin(echo)) as origin,
        Serve(
            tmp_path,
            "--mode",
            "passthrough",
            "--threads",
            "1",
            "--resolve",
            "*.lab.test:127.0.0.1",
            environ={"POLYTLS_PROXY__LIMITS__TUNNELS": "1000"},
            under=("sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"'),
        ) as served,
    ):
        served.wait_for_note(f"1000 tunnels need more open files than are allowed; {TUNNELS} are possible")
        tunnels = [open_tunnel(served, "a.lab.test", origin.port) for _ in range(TUNNELS)]
        for _ in range(3):
            with pytest.raises(RefusedError, match="503"):
                open_tunnel(served, "a.lab.test", origin.port)
        assert all(ping(tunnel) for tunnel in tunnels)
        assert descriptors_of(served.pid) < FILES
        tunnels.pop().close()
        served.record("a.lab.test")
        tunnels.append(open_tunnel(served, "a.lab.test", origin.port))
        assert ping(tunnels[-1])
        for tunnel in tunnels:
            tunnel.close()
