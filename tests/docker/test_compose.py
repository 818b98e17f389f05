"""docker/compose.yaml and the files it mounts: valid by the published schema, confined, and in agreement."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from polytls import __version__
from polytls.config import load_settings
from tests.docker.dockerfile import DOCKER, ROOT

_PORT = re.compile(r"^127\.0\.0\.1:(\d+):(\d+)$")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((DOCKER / name).read_text(encoding="utf-8"))
    return found


COMPOSE = read("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
COLLECTOR = read("collector.yaml")
SETTINGS = load_settings(ROOT / "config" / "container.toml", {}, {}).settings


def test_it_is_valid_by_the_published_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(DOCKER / "compose.yaml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert not service.get("privileged")
    assert "network_mode" not in service
    assert "user" not in service, "the image says who"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert _PORT.match(port), port


@pytest.mark.parametrize("name", SERVICES)
def test_images_have_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert image.count("/") <= 1, "no registry is named"


def test_what_is_mounted_is_there_and_read_only_or_a_volume() -> None:
    named = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, mode = volume.partition(":")
            if source.startswith("."):
                assert (DOCKER / source).exists(), source
                assert mode.endswith(":ro"), volume
            else:
                named.add(source)
    assert named == set(COMPOSE["volumes"])


def test_the_proxy_is_ours() -> None:
    proxy = SERVICES["proxy"]
    assert proxy["image"] == f"polytls:{__version__}"
    assert (DOCKER / proxy["build"]["context"]).resolve() == ROOT
    assert (ROOT / proxy["build"]["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    declared = set(
        re.findall(r"^ARG (\w+)", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(proxy["build"]["args"]) <= declared
    (port,) = proxy["ports"]
    assert port.endswith(f":{SETTINGS.listen.address.port}")
    assert proxy["volumes"] == [f"ca:{SETTINGS.certificate.ca_key_path.parent}"]
    grace = int(proxy["stop_grace_period"].removesuffix("s"))
    assert grace > SETTINGS.timeouts.drain + 5, "the last export may take five seconds"
    load_settings(ROOT / "config" / "container.toml", proxy["environment"], {})


def test_the_proxy_exports_to_the_collector() -> None:
    endpoint = SERVICES["proxy"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    port = COLLECTOR["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert endpoint == SETTINGS.telemetry.endpoint == f"http://collector:{port}"


def test_the_collector_has_a_pipeline_for_each_signal_of_what_it_defines() -> None:
    pipelines = COLLECTOR["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics", "logs"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == set(COLLECTOR[kind])
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines.values())


def test_the_others_find_each_other() -> None:
    host, _, port = COLLECTOR["exporters"]["otlp_grpc/jaeger"]["endpoint"].partition(":")
    assert (host in SERVICES, port) == (True, "4317")
    (scrape,) = read("prometheus.yaml")["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in SERVICES
    assert COLLECTOR["exporters"]["prometheus"]["endpoint"] == f"0.0.0.0:{port}"
    sources = read("grafana/provisioning/datasources/datasources.yaml")["datasources"]
    for source in sources:
        url = re.fullmatch(r"http://(\w+):(\d+)", source["url"])
        assert url is not None
        assert any(each.endswith(f":{url[2]}") for each in SERVICES[url[1]]["ports"])


def test_prometheus_asks_as_often_as_the_proxy_exports() -> None:
    interval = read("prometheus.yaml")["global"]["scrape_interval"]
    assert interval == f"{SETTINGS.telemetry.metric_interval:g}s"


def test_the_dashboards_are_where_grafana_looks() -> None:
    (provider,) = read("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    grafana = SERVICES["grafana"]
    places = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    directory = DOCKER / places[provider["options"]["path"]]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (directory / home.rpartition("/")[2]).is_file()
