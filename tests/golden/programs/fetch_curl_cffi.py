"""One curl_cffi session, `times` requests: fetch_curl_cffi.py TARGET HOST PORT TIMES."""

from __future__ import annotations

import contextlib
import importlib
import sys


def main(target: str, host: str, port: str, times: str) -> None:
    # By name: the type checker's environment does not have it.
    curl_cffi = importlib.import_module("curl_cffi")
    resolve = {curl_cffi.CurlOpt.RESOLVE: [f"{host}:{port}:127.0.0.1"]}
    with curl_cffi.Session(impersonate=target, verify=False, curl_options=resolve, timeout=10) as session:
        for _ in range(int(times)):
            with contextlib.suppress(curl_cffi.requests.errors.RequestsError):  # the server may hang up
                session.get(f"https://{host}:{port}/")


if __name__ == "__main__":
    main(*sys.argv[1:])
