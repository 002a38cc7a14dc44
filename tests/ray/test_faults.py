"""Engine deaths, hangs, poison problems and killed drivers: each problem ends in one place, nothing is repeated."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import scripted_problems
from scripted_problems import mortal, must_not_start, once, write_problems

from offsft.config.loading import load
from offsft.data.quarantine import poison_ids
from offsft.errors import EngineError
from offsft.rewrite.run import run_rewrite
from offsft.runtime import shutdown
from offsft.storage.run_folder import RunFolder

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def settings(tmp_path, *overrides):
    return [
        f"run={tmp_path / 'run'}",
        f"data.path={tmp_path / 'p.jsonl'}",
        "rewrite.commit_problems=4",
        "rewrite.stages.self.waves=[2]",
        "rewrite.stages.guided.waves=[2]",
        "rewrite.max_tokens=40",
        "verify.timeout_s=60",
        "rewrite.guards={support: null, first_support: null, bare: false}",
        *overrides,
    ]


def start(tmp_path, *overrides):
    recipe = load(None, settings(tmp_path, *overrides))
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    return recipe, folder


def rewrites(folder):
    """All rows; a file that is being written is skipped."""
    rows = []
    for path in sorted(folder.glob("*.parquet")):
        with suppress(pa.ArrowInvalid):
            rows += pq.read_table(path).to_pylist()
    return rows


@pytest.mark.usefixtures("ray_session")
def test_engines_that_die_or_hang_and_actors_that_are_killed_are_replaced(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 32)
    recipe, folder = start(tmp_path, "engine.stall_s=5")

    def fate(prompt):
        if "self 6" in prompt and once(tmp_path / "died"):
            return "die"
        if "self 12" in prompt and once(tmp_path / "hung"):
            return "hang"
        if "self 27" in prompt and once(tmp_path / "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    def hangs_wholly(prompts):
        sampler = mortal(fate)(prompts)
        play = sampler.sample

        async def sample(*arguments, **named):
            if (tmp_path / "hung").exists() and once(tmp_path / "hung-wholly"):
                sampler._fate = lambda _: "hang"
            return await play(*arguments, **named)

        sampler.sample = sample
        return sampler

    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=hangs_wholly)
    assert (tmp_path / "killed").exists()
    rows = rewrites(folder.rewrites)
    assert len({row["id"] for row in rows}) == len(rows) == result["problems"] == 32
    assert result["quarantined"] == 0
    logs = "".join(path.read_text() for path in folder.logs.glob("engine-*.log"))
    assert "EngineDeadError" in logs
    assert "the engine has answered nothing for 5 s" in logs


@pytest.mark.usefixtures("ray_session")
def test_a_problem_that_kills_every_engine_goes_to_quarantine_alone(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 12)
    recipe, folder = start(tmp_path, "engine.poison_tries=2")

    def fate(prompt):
        return "die" if "guided 7" in prompt else None

    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=mortal(fate))
    rows = rewrites(folder.rewrites)
    assert {row["problem"] for row in rows} == {
        f"{('self', 'guided', 'expert')[i % 3]} {i}" for i in range(12) if i != 7
    }
    assert result["problems"] == len(rows) == 11
    assert result["quarantine_reasons"] == {"poison": 1}
    (kept,) = rewrites(folder.quarantine)
    assert (kept["reason"], kept["line"]) == ("poison", 8)
    assert kept["file"].endswith("p.jsonl")
    assert "guided 7" in kept["raw"]
    assert len(poison_ids(folder.quarantine)) == 1
    again = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=must_not_start)
    assert again["problems"] == 11


def left_over():
    """Stages' actors, placement groups and threads that there are now, by name."""
    family = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            family.append(" ".join(process.cmdline()))
    actors = [title for title in family if re.match("ray::(MapWorker|Coordinator)", title)]
    groups = [key for key, group in ray.util.placement_group_table().items() if group["state"] != "REMOVED"]
    return Counter([*actors, *groups, *(thread.name for thread in threading.enumerate())])


@pytest.mark.usefixtures("ray_session")
def test_a_stage_gives_back_all_it_took_whether_it_is_done_fails_or_is_stopped(
    tmp_path, tiny_model, console, monkeypatch
):
    """It fails since every engine dies at its first request, which is told and ends it."""
    said = []
    monkeypatch.setattr(console, "say", said.append)

    def stage(name, factory, *overrides):
        (tmp_path / name).mkdir()
        write_problems(tmp_path / name / "p.jsonl", 8)
        recipe, folder = start(tmp_path / name, "engine.concurrent_commits=1", "engine.grace_s=0", *overrides)
        run_rewrite(recipe, folder, tiny_model, console, sampler_factory=factory)

    def slow(prompts):
        (tmp_path / "engine-is-there").touch()
        sampler = scripted_problems.scripted_sampler(prompts)
        sampler.delay_s = 3600
        return sampler

    def interrupt():
        while not (tmp_path / "engine-is-there").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    stage("done", scripted_problems.scripted_sampler)
    before = {name for name in left_over() if "ray::" not in name}
    with pytest.raises(
        EngineError, match="an engine starts and dies at its first request, 2 times in a row"
    ) as failure:
        stage("failed", mortal(lambda _: "die"))
    assert any("an engine died before it answered anything" in line for line in said), said
    threading.Thread(target=interrupt).start()
    monkeypatch.setattr(shutdown, "_received", None)
    monkeypatch.setattr(shutdown, "_out_of_time", False)
    with pytest.raises(KeyboardInterrupt) as stopped:
        stage("stopped", slow)
    while left := left_over().keys() - before:
        time.sleep(0.5)
        print(left)  # what pytest's time limit then shows
    assert [failure.type, stopped.type] == [EngineError, KeyboardInterrupt], (
        "both are held, with all that their frames hold"
    )


class Driver:
    """A rewriting job in a separate process, with `delay_s` per sample."""

    def __init__(self, tmp_path, model, delay_s, *overrides):
        command = [sys.executable, str(Path(__file__).with_name("rewriting_job.py")), model, str(delay_s)]
        command.append("cluster.dashboard=false")
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.rewrites = tmp_path / "run" / "rewrites"
        self.process = subprocess.Popen(
            [*command, *settings(tmp_path, *overrides)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def once_more_is_committed(self, before):
        """Wait until more rows than before are written, and return their number."""
        while (found := len(rewrites(self.rewrites))) <= before:
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.2)
        return found

    def ended(self):
        """The exit status and the output."""
        printed = self.process.communicate()[0]
        return self.process.returncode, printed


def half_written(run):
    """Make the leftovers of a kill during a write: a truncated data file, and the commit that announced it."""
    announced = run / "rewrites.committed" / "00-killed_000001.pending.parquet"
    pq.write_table(pa.table({"id": ["none"]}), announced)
    (run / "rewrites" / "00-killed_000001-0.parquet").write_bytes(b"PAR1")


def test_however_a_driver_ends_the_same_command_goes_on(tmp_path, tiny_model):
    """Ended by a signal, by two, by SIGKILL; then left to finish."""
    write_problems(tmp_path / "p.jsonl", 80)
    job = Driver(tmp_path, tiny_model, 0.5, "engine.concurrent_commits=1", "engine.grace_s=30")
    before = job.once_more_is_committed(0)
    job.process.send_signal(signal.SIGTERM)
    status, printed = job.ended()
    assert status == 143, printed
    assert "stopping; what is in work has 30 s to finish" in printed
    assert "stopped; the same command continues from here" in printed
    assert "Traceback" not in printed
    first = rewrites(job.rewrites)
    # The group in work at the signal was finished and written; no further one was begun.
    assert before < len(first) < 40

    job = Driver(tmp_path, tiny_model, 1.0, "engine.concurrent_commits=1", "engine.grace_s=600")
    second = job.once_more_is_committed(len(first))
    job.process.send_signal(signal.SIGTERM)
    assert any("stopping; what is in work" in line for line in job.process.stdout)
    job.process.send_signal(signal.SIGTERM)
    assert job.ended()[0] == 143

    job = Driver(tmp_path, tiny_model, 0.3, "engine.concurrent_commits=1")
    job.once_more_is_committed(second)
    job.process.kill()
    job.process.communicate()
    half_written(job.rewrites.parent)
    assert len(rewrites(job.rewrites)) < 80

    status, printed = Driver(tmp_path, tiny_model, 0.0).ended()
    assert status == 0, printed
    assert not list(job.rewrites.glob("00-killed*"))
    everything = rewrites(job.rewrites)
    rows = {row["id"]: row for row in everything}
    assert len(rows) == len(everything) == 80
    assert all(rows[row["id"]] == row for row in first), "what was paid for is kept"
