"""A metric, column, group or alert without a word in its page fails here."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast_gateway.metering.reports import DIMENSIONS
from holdfast_gateway.metering.usage import USAGE

ROOT = Path(__file__).parents[3]
PAGES = {
    name: (ROOT / f"docs/capabilities/{name}.md").read_text() for name in ("metering", "metrics")
}
METRICS = ROOT / "playbooks/ansible_collections/holdfast/platform/roles/metrics"


def test_every_column_and_group_has_a_word() -> None:
    for column in USAGE.columns:
        assert f"`{column.name}`" in PAGES["metering"], column.name
    for name in DIMENSIONS:
        assert f"`{name}`" in PAGES["metering"], name


def test_every_metric_has_a_word() -> None:
    text = "".join(path.read_text() for path in (ROOT / "gateway/src").rglob("*.py"))
    names = set(re.findall(r'"(holdfast_gateway_[a-z_]+)"', text))
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in PAGES["metering"]} == set()


def test_every_verdict_has_a_word() -> None:
    text = (ROOT / "gateway/src/holdfast_gateway/metering/agreement.py").read_text()
    verdicts = set(re.findall(r'return "([a-z]+)"', text)) | {"explained", "differ"}
    assert len(verdicts) == 4
    assert {each for each in verdicts if f"`{each}`" not in PAGES["metering"]} == set()


def test_every_alert_has_a_word_and_asks_for_metrics_there_are() -> None:
    rules = (METRICS / "templates/rules.yml.j2").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert len(alerts) > 4
    assert {alert for alert in alerts if f"`{alert}`" not in PAGES["metrics"]} == set()
    asked = {
        name.removesuffix("_bucket") for name in re.findall(r"holdfast_gateway_[a-z_]+", rules)
    }
    text = "".join(path.read_text() for path in (ROOT / "gateway/src").rglob("*.py"))
    assert {name for name in asked if f'"{name}"' not in text} == set()


def test_the_report_asks_for_what_the_collector_writes() -> None:
    collector = (METRICS / "files/energy.py").read_text()
    reader = (ROOT / "gateway/src/holdfast_gateway/metering/energy.py").read_text()
    (written,) = re.findall(r'^METRIC = "(\w+)"', collector, re.MULTILINE)
    (read,) = re.findall(r'^_METRIC = "(\w+)"', reader, re.MULTILINE)
    assert written == read
