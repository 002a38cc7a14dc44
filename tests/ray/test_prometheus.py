"""The real Prometheus scrapes a running job with cluster/prometheus.yml, and each dashboard query finds data."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240

pytestmark = [pytest.mark.ray, pytest.mark.needs("prometheus")]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end(process):
    if process.stdin:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(90)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The session folder of a Ray with a running job."""
    folder = tmp_path_factory.mktemp("job")
    command = [sys.executable, str(Path(__file__).with_name("watched_job.py")), str(folder), str(free_port())]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "500"}
    environment.pop("RAY_ADDRESS", None)
    with (folder / "log").open("wb") as log:
        job = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    try:
        yield Path(job.stdout.readline().decode().strip() or pytest.fail((folder / "log").read_text()))
    finally:
        end(job)


@pytest.fixture(scope="module")
def ask(session, tmp_path_factory):
    """A function from a query to Prometheus's answer."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = yaml.safe_load((ROOT / "cluster" / "prometheus.yml").read_text())
    settings["global"]["scrape_interval"] = "1s"
    (scrape,) = settings["scrape_configs"]
    scrape["file_sd_configs"][0] = {"files": [str(session / "prom_metrics_service_discovery.json")]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (folder / "ray-token").write_text("a-token")
    address = f"127.0.0.1:{free_port()}"
    command = [shutil.which("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)

    def query(expression):
        url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    try:
        yield query
    finally:
        end(server)


def queries():
    """(row, query) per target of the dashboard, as Grafana would send it for all runs."""
    row = ""
    for panel in json.loads((ROOT / "cluster" / "grafana" / "offsft.json").read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            yield row, target["expr"].replace("$__rate_interval", "1m").replace("$run", ".*")


def test_each_query_of_the_dashboard_finds_data(ask):
    """And the numbers are the job's: 60 problems, a third of each fate, or fewer if the last report was missed."""
    waiting = [expression for row, expression in queries() if row != "Serving"]
    assert len(waiting) > 20
    until_s = time.monotonic() + PATIENCE_S
    while waiting and time.monotonic() < until_s:
        time.sleep(1)
        try:
            waiting = [expression for expression in waiting if not ask(expression)]
        except OSError:  # it has just been started
            continue
    assert not waiting, "\n".join(waiting)
    found = {}
    while len(found) < 3 and time.monotonic() < until_s:
        done = ask('sum by (outcome) (max_over_time(ray_offsft_problems_total{run="watched"}[10m]))')
        found = {row["metric"]["outcome"]: float(row["value"][1]) for row in done}
        time.sleep(1)
    assert found.keys() == {"self", "guided", "expert"}
    assert all(0 < number <= 20 for number in found.values()), found


def test_the_gateways_requests_are_counted_by_status_and_rewrites_by_outcome(ask):
    def counted(metric, label):
        rows = ask(f"sum by ({label}) (ray_offsft_gateway_{metric}_total)")
        return {row["metric"][label]: float(row["value"][1]) for row in rows}

    until_s = time.monotonic() + PATIENCE_S
    while not (found := counted("requests", "status")) and time.monotonic() < until_s:
        time.sleep(1)
    assert found == {"200": 1, "400": 1, "422": 1}
    assert counted("rewrites", "source") == {"self": 1, "rejected": 1}
    assert counted("tokens", "kind").keys() == {"prompt", "completion"}
