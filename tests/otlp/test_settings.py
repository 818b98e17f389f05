"""Settings and standard variables, as a running proxy goes by them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polytls.telemetry.otlp import vocabulary as words
from tests.otlp import traffic
from tests.otlp.receiver import Receiver
from tests.peers.serve import HANG_SECONDS, Serve, clean_environment
from tests.peers.tools import curl, fetch

if TYPE_CHECKING:
    from tests.peers.certificates import Authority
    from tests.peers.origin import Origin

Start = Callable[..., Serve]
TRACED = ("--proxy-header", f"traceparent: 00-{traffic.CALLER_TRACE}-{traffic.CALLER_SPAN}-01")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def start(ca_dir: Path, options: tuple[str, ...], receiver: Receiver) -> Iterator[Start]:
    started: list[Serve] = []

    def start_one(*more: str, **environ: str) -> Serve:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        proxy = Serve(ca_dir, *options, *more, environ={**endpoint, **environ})
        started.append(proxy)
        return proxy

    yield start_one
    for proxy in started:
        proxy.stop()


def test_an_untouched_tunnel_has_no_steps_of_tls(
    start: Start, receiver: Receiver, origin: Origin, authority: Authority
) -> None:
    proxy = start("--mode", "passthrough")
    url = f"https://untouched.lab.test:{origin.port}/"
    curl("-x", proxy.url, "--cacert", str(authority.pem), url)
    assert proxy.stop() == 0
    found = receiver.exported()
    tunnel = found.tunnel("untouched.lab.test")
    assert tunnel.attributes[words.MODE] == "passthrough"
    assert words.PROFILE not in tunnel.attributes
    assert list(found.children(tunnel)) == ["head", "resolve", "connect", "relay"]
    assert found.last(words.LEAF_MINTS.name) is None
    assert found.last(words.ENDED.name, polytls_mode="passthrough", polytls_profile="none") == 1


@pytest.mark.parametrize(
    ("environ", "traced", "untraced"),
    [
        ({}, True, True),
        ({"POLYTLS_TELEMETRY__SAMPLING": "0"}, True, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False, False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True, False),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, False, False),
        ({"OTEL_TRACES_SAMPLER": "always_on", "POLYTLS_TELEMETRY__SAMPLING": "0"}, True, True),
    ],
    ids=["default", "share", "always_off", "parentbased", "ratio", "variable wins"],
)
def test_who_decides_what_is_sampled(
    start: Start, receiver: Receiver, origin: Origin, environ: dict[str, str], traced: bool, untraced: bool
) -> None:
    proxy = start(**environ)
    assert fetch(proxy, *TRACED, f"https://traced.lab.test:{origin.port}/").status == 200
    assert fetch(proxy, f"https://untraced.lab.test:{origin.port}/").status == 200
    assert (proxy.record("traced.lab.test")["trace"] is not None) == traced
    assert proxy.stop() == 0
    found = receiver.exported()
    hosts = {span.attributes[words.SERVER_ADDRESS] for span in found.tunnels()}
    assert hosts == {
        host for host, wanted in (("traced.lab.test", traced), ("untraced.lab.test", untraced)) if wanted
    }
    # Logs and metrics are about all tunnels.
    assert found.log("untraced.lab.test").trace_id == "" or untraced
    assert found.last(words.ENDED.name, polytls_outcome="completed") == 2


def test_signals_can_be_turned_off_one_by_one(start: Start, receiver: Receiver, origin: Origin) -> None:
    proxy = start(OTEL_TRACES_EXPORTER="none", POLYTLS_TELEMETRY__LOGS="false")
    assert fetch(proxy, f"https://metrics.lab.test:{origin.port}/").status == 200
    assert proxy.record("metrics.lab.test")["trace"] is None
    assert proxy.stop() == 0
    found = receiver.exported()
    assert (found.spans, found.logs) == ([], [])
    assert found.last(words.ENDED.name, polytls_outcome="completed") == 1


def test_hosts_are_in_metrics_where_they_are_asked_for(
    start: Start, receiver: Receiver, origin: Origin
) -> None:
    proxy = start(POLYTLS_TELEMETRY__HOSTS_IN_METRICS="true")
    for name in ("one", "two"):
        assert fetch(proxy, f"https://{name}.lab.test:{origin.port}/").status == 200
    assert proxy.stop() == 0
    found = receiver.exported()
    for name in ("one", "two"):
        assert found.last(words.ENDED.name, server_address=f"{name}.lab.test") == 1
        assert found.last(words.CONNECT_TIME.name, server_address=f"{name}.lab.test") == 1


def test_who_exports_can_be_named(start: Start, receiver: Receiver, origin: Origin, tmp_path: Path) -> None:
    config = tmp_path / "named.toml"
    config.write_text('[telemetry]\nservice_name = "edge"\ninstance = "edge-7"\n')
    proxy = start("--config", str(config))
    assert fetch(proxy, f"https://named.lab.test:{origin.port}/").status == 200
    assert proxy.stop() == 0
    resource = receiver.exported().tunnel("named.lab.test").resource
    assert (resource["service.name"], resource["service.instance.id"]) == ("edge", "edge-7")


def test_compression_is_the_exporters(start: Start, receiver: Receiver, origin: Origin) -> None:
    proxy = start(OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    assert fetch(proxy, f"https://packed.lab.test:{origin.port}/").status == 200
    assert proxy.stop() == 0
    assert receiver.exported().tunnel("packed.lab.test").status == 0
    assert all(body.startswith(b"\x1f\x8b") for body in receiver.raw)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense"}, "environment variable OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/none.pem"},
            "/none.pem: telemetry.certificate_file: cannot be read",
        ),
        ({"POLYTLS_TELEMETRY__HEADERS_FILE": "/none"}, "/none: telemetry.headers_file: cannot be read"),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_start(start: Start, environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(RuntimeError, match="the proxy did not start") as caught:
        start(**environ)
    assert sentence in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_packages_that_are_not_installed_are_named(tmp_path: Path, receiver: Receiver) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; from polytls.cli import main; sys.exit(main())"
    )
    options = ["serve", "--listen", "127.0.0.1:0", "--mode", "passthrough"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**clean_environment(), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'polytls[otlp]'" in done.stderr
    assert "Traceback" not in done.stderr
