"""Exporters, resource and sampler as the settings say."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource

from polytls.settings import TelemetrySettings
from polytls.telemetry.otlp.exporters import make_resource


def test_a_resource_is_hashed_once_and_to_the_same() -> None:
    """Encoders sort spans by resource: equal ones must stay equal, whoever made them."""
    made = make_resource(TelemetrySettings(instance="one"))
    plain = Resource(made.attributes, made.schema_url)
    assert (made, hash(made)) == (plain, hash(plain))
    assert {plain: 1}[made] == 1
    assert made.attributes["service.instance.id"] == "one"
    assert made != make_resource(TelemetrySettings(instance="two"))
