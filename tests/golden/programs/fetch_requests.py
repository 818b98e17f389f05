"""A requests session through CONNECT to the recorder: fetch_requests.py HOST PORT TIMES CA."""

from __future__ import annotations

import contextlib
import sys

import requests


def main(host: str, port: str, times: str, authority: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(int(times)):
            with contextlib.suppress(requests.RequestException):
                session.get(
                    f"https://{host}:{port}/",
                    proxies={"https": f"http://127.0.0.1:{port}"},
                    verify=authority,
                    timeout=10,
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
