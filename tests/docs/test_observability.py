"""docs/observability.md says what the code exports, and which variables it reads."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from polytls.config import load_settings
from polytls.config.otel import VARIABLES
from polytls.telemetry.otlp.plan import MAX_WAITING, plan
from polytls.telemetry.otlp.reference import marked, tables

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", tables())
def test_the_tables_are_those_of_the_code(name: str) -> None:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", TEXT, re.DOTALL)
    assert found is not None
    assert found[1] == tables()[name]
    assert f"<!-- {name} -->\n{tables()[name]}" in marked()


def test_every_variable_that_is_a_key_is_told() -> None:
    for variable, (key, _) in VARIABLES.items():
        suffix = variable.removeprefix("OTEL_EXPORTER_OTLP")
        assert variable in TEXT or f"\\{suffix}" in TEXT
        assert f"`{key}`" in TEXT


def test_metrics_and_outcomes_that_are_alerted_on_exist() -> None:
    from polytls.errors import Kind

    alerts = TEXT.partition("## What to alert on")[2].partition("## ")[0]
    metrics = tables()["metrics"] + tables()["attributes"]
    for name in re.findall(r"`(polytls\.[\w.]+)`", alerts):
        assert f"`{name}`" in metrics, name
    kinds = {kind.value for kind in Kind}
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", alerts):
        assert name in kinds, name


def test_the_limit_of_what_waits_is_told() -> None:
    assert f"{MAX_WAITING:,}" in TEXT


def test_the_picture_is_one() -> None:
    root = ElementTree.fromstring((ROOT / "docs" / "trace.svg").read_text(encoding="utf-8"))
    texts = {element.text for element in root.iter()}
    assert {"tunnel", "head", "resolve", "connect", "hello", "relay"} <= texts


def test_the_container_configuration_is_valid_and_exports_everything() -> None:
    settings = load_settings(ROOT / "config" / "container.toml", {}, {}).settings
    wanted = plan(settings.telemetry, {})
    assert wanted is not None
    assert {export.endpoint for export in wanted.exports} == {
        f"http://collector:4318/v1/{name}" for name in ("traces", "metrics", "logs")
    }
    assert settings.log.fingerprint
    # Both files of the CA are in one directory, which is the one volume.
    paths = settings.certificate.ca_key_path, settings.certificate.ca_cert_path
    assert len({path.parent for path in paths}) == 1
