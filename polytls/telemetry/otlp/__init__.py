"""Traces, metrics and logs for an OpenTelemetry collector, over OTLP.

`plan` says what is to be exported, if anything, and imports nothing of OpenTelemetry: a proxy without a
collector never loads the SDK. `start` makes the exporters; it is the door to everything else in here.
"""
