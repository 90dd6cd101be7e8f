"""Alert rules and dashboard: that Prometheus takes them, and that the service measures what they name."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.watching.metrics import Metrics
from tests.test_helm_chart import find, render

MONITORING = Path(__file__).parents[2] / "helm" / "data-alchemy" / "monitoring"
ALERTS = MONITORING / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def targets() -> list[str]:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics in a PromQL expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on)\s*\([^)]*\)", " ", bare)
    names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()\b", bare))
    return names - {"and", "or", "unless"}


def exposed() -> set[str]:
    """The names of all series that the service can show."""
    text = Metrics().text().decode()
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    histograms = {name for name, kind in types.items() if kind == "histogram"}
    return types.keys() | {f"{name}_{end}" for name in histograms for end in ("bucket", "count", "sum")}


def test_prometheus_takes_the_rules_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", MONITORING / "alerts_test.yaml")


def test_every_alert_is_tested_and_explained() -> None:
    tests = (MONITORING / "alerts_test.yaml").read_text()
    explained = (MONITORING.parents[2] / "docs" / "operations.md").read_text()
    for rule in rules():
        assert rule["alert"] in tests
        assert f"`{rule['alert']}`" in explained
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"dashboard:{n}", "expr": expr.replace("$__rate_interval", "5m")}
        for n, expr in enumerate(targets())
    ]
    assert len(recorded) > 30
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", file)


def test_alerts_and_dashboard_name_only_what_the_service_measures() -> None:
    assert metrics_in('sum by (le) (rate(a_bucket{b="c"}[5m])) / d > 0.2 and on (e) f') == {
        *("a_bucket", "d", "f"),
    }
    for expression in [*targets(), *(rule["expr"] for rule in rules())]:
        assert metrics_in(expression), expression
        assert metrics_in(expression) <= exposed(), expression


def test_the_chart_brings_rules_and_dashboard_where_they_are_wanted() -> None:
    wanted = ("serving.monitoring.rules.enabled=true", "serving.monitoring.dashboard.enabled=true")
    manifests = render("default-values.yaml", *wanted)
    (rule,) = (one for one in manifests if one["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    dashboard = find(manifests, "ConfigMap", "dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    shown = json.loads(dashboard["data"]["data-alchemy.json"])
    assert shown == json.loads((MONITORING / "dashboard.json").read_text())
    assert not [one for one in render("default-values.yaml") if one["kind"] == "PrometheusRule"]
