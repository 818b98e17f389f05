"""The dashboard asks for metrics and labels that exist, in PromQL that parses, and shows every metric."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docker.dockerfile import DOCKER
from tests.docker.translated import series

promql = pytest.importorskip("promql_parser", reason="promql-parser has no wheel here")

DASHBOARD: dict[str, Any] = json.loads(
    (DOCKER / "grafana" / "dashboards" / "polytls.json").read_text(encoding="utf-8")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
_GRAFANA = {"$__rate_interval": "1m", "$__range": "1h"}
_LEGEND = re.compile(r"{{(\w+)}}")
_SERIES = re.compile(r"\b(polytls_\w+?)(?:{(.*?)})")
_BY = re.compile(r"\bby \(([^)]*)\)")


def expressions() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"], target


def asked() -> list[tuple[str, str]]:
    """Every series with its matchers, in the order of the panels."""
    return [found for expr, _ in expressions() for found in _SERIES.findall(expr)]


@pytest.mark.parametrize("expr", sorted({expr for expr, _ in expressions()}))
def test_an_expression_is_promql(expr: str) -> None:
    for name, value in _GRAFANA.items():
        expr = expr.replace(name, value)
    promql.parse(expr)


def test_every_metric_exists_and_every_metric_is_shown() -> None:
    known = series()
    shown = {name for name, _ in asked()}
    assert shown <= set(known)
    assert {_family(name) for name in shown} == {_family(name) for name in known}


def _family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_label_exists() -> None:
    known = series()
    for expr, target in expressions():
        names = [name for name, _ in _SERIES.findall(expr)]
        labels = set.union(*(set(known[name]) for name in names))
        used = {part.strip() for group in _BY.findall(expr) for part in group.split(",")}
        for _, matchers in _SERIES.findall(expr):
            used |= set(re.findall(r"(\w+)(?:=~|!=|=)", matchers))
        assert used <= labels, expr
        # What a legend names must be left over by the aggregation.
        assert set(_LEGEND.findall(target["legendFormat"])) <= used, target["legendFormat"]


def test_outcomes_that_are_named_exist() -> None:
    from polytls.errors import Kind

    outcomes = {kind.value for kind in Kind} | {"completed"}
    named = {value for expr, _ in expressions() for value in re.findall(r'polytls_outcome!?="(\w+)"', expr)}
    assert named
    assert named <= outcomes


def test_counters_are_rates_and_histograms_quantiles() -> None:
    for expr, _ in expressions():
        for name, _ in _SERIES.findall(expr):
            counts = name.endswith(("_total", "_bucket"))
            assert counts == bool(re.search(r"\b(rate|increase)\(" + name, expr)), expr


def test_variables_and_data_sources_exist() -> None:
    provisioned = (DOCKER / "grafana" / "provisioning" / "datasources" / "datasources.yaml").read_text(
        "utf-8"
    )
    for panel in (*PANELS, *VARIABLES.values()):
        assert f"uid: {panel['datasource']['uid']}\n" in provisioned
    used = {name for expr, _ in expressions() for name in re.findall(r"\$(?!__)(\w+)", expr)}
    assert used == set(VARIABLES)
    for name, variable in VARIABLES.items():
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        assert asked[2] == name
        assert name in series()[asked[1]]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
