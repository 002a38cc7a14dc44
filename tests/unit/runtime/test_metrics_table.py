"""docs/metrics.md and the dashboard name exactly the metrics that exist."""

import json
import re
from pathlib import Path

import pytest

from offsft.runtime import metrics

ROOT = Path(__file__).parents[3]


def test_the_table_is_the_code():
    rows = [line for line in (ROOT / "docs" / "metrics.md").read_text().splitlines() if line.startswith("| `")]
    expected = []
    for metric in metrics.ALL:
        labels = "; ".join(f"`{name}`: {values}" for name, values in metric.labels.items() if name != "run")
        expected.append(f"| `ray_{metric.name}` | {metric.kind} | {metric.meaning} | {labels} |")
    assert rows == expected


def test_names_are_as_prometheus_wants_them():
    names = [metric.name for metric in metrics.ALL]
    assert len(set(names)) == len(names)
    for metric in metrics.ALL:
        assert re.fullmatch(r"offsft_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == isinstance(metric, metrics.Counter), metric.name


def test_the_dashboard_shows_every_metric_and_no_other():
    panels = json.loads((ROOT / "cluster" / "grafana" / "offsft.json").read_text())["panels"]
    text = " ".join(target["expr"] for panel in panels for target in panel.get("targets", []))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"ray_(offsft_\w+)", text)}
    assert shown == {metric.name for metric in metrics.ALL}
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Rewriting",
        "Gap",
        "Training and evaluation",
        "Serving",
        "Gateway",
    ]


def test_a_process_outside_ray_tells_nothing_but_wrong_labels_are_found():
    metrics.PROBLEMS.add(run="r", stage="rewrite", outcome="self")
    metrics.GAP_ESS.set(None, run="r")
    with pytest.raises(AssertionError, match="problems_total"):
        metrics.PROBLEMS.add(run="r", stage="rewrite")
