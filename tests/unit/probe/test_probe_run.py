"""The probe around its trainings, which are made up here: what is trained when, what is left, and what is refused."""

import json
from contextlib import nullcontext

import pyarrow as pa
import pytest
import yaml
from test_probe_sample import write_rewrites

from offsft.config.loading import load
from offsft.data.tables import SCORE_SCHEMA
from offsft.errors import ConfigError, RunFolderError, TrainingError
from offsft.probe import run as probe
from offsft.runtime.console import Console
from offsft.storage.paths import write_table
from offsft.train.loading import load_rows

GAIN = {"sft": 0.4, "dft": 0.05}
SETTINGS = (
    "model.dtype=float32",
    "train.global_batch=4",
    "train.objective={kind: dft}",
    "probe.steps=5",
    "probe.objectives=[{kind: sft}, {kind: dft}]",
)


class QuietConsole(Console):
    """A console that does not redirect the tests' own output."""

    def quiet(self, log):
        pass


@pytest.fixture
def trained(monkeypatch):
    """Objectives in the order of their trainings, each of which lowers the likelihood by a known gain."""
    kinds = []

    def train(context):
        settings, folder = context.recipe.train, context.folder
        kind = settings.objective.kind
        kinds.append(kind)
        (folder.path / "checkpoints").mkdir()
        if GAIN.get(kind) is None:
            raise TrainingError(f"{kind} failed")
        sample = load_rows(folder.rewrites, settings, sample_seed=context.recipe.seed).sample
        for when, gain in (("before", 0.0), ("after", GAIN[kind])):
            for responses, rows in sample.items():
                scored = [
                    {"id": row.id, "source": row.source, "logprobs": [gain - 1.0 - n / 9] * len(row.response_ids)}
                    for n, row in enumerate(rows)
                ]
                path = folder.gap / "trained" / when / responses / "rank-0.parquet"
                path.parent.mkdir(parents=True)
                write_table(pa.Table.from_pylist(scored, schema=SCORE_SCHEMA), path)
        line = {"loss/nll": 1.0, "loss/objective": 1.0, "optim/grad_norm": 2.0, "weight/mean": 1.0, "time/step_s": 0.5}
        lines = [line | {"weight/ess_share": 1.0}] * 5
        (folder.path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        (folder.path / "held_out.jsonl").write_text('{"step": 0, "held_out/nll/all": 1.5}\n')
        folder.model.mkdir()
        folder.finish("train", {"seconds": 3.0})

    for name, fake in (
        ("train", train),
        ("resolve_model", lambda model: "some/model"),
        ("refuse_what_stops", lambda *_: None),
        ("check_nodes", lambda *_: None),
        ("ray_session", lambda cluster: nullcontext()),
    ):
        monkeypatch.setattr(probe, name, fake)
    return kinds


def probed(run, *overrides):
    return probe.run_probe(load(None, [f"run={run}", *SETTINGS, *overrides]), QuietConsole())


def test_each_objective_is_trained_once_and_one_is_recommended(tmp_path, trained):
    write_rewrites(tmp_path)
    found = probed(tmp_path)
    assert trained == ["sft", "dft"]
    assert (found["recommended"], found["setting"]) == ({"kind": "sft"}, "train.objective.kind=sft")
    assert (found["steps"], found["train_rows"], found["held_out_rows"]) == (5, 20, 10)
    changes = {each["name"]: each["texts"]["trained"]["change"]["mean"] for each in found["objectives"]}
    assert changes == pytest.approx({"sft": -0.4, "dft": -0.05})
    own, expert = (found["objectives"][0]["texts"][name]["rows"] for name in ("own", "expert"))
    assert (0 < own < 10, expert) == (True, 10)
    written = json.loads((tmp_path / "probe.json").read_text())
    assert written["summary"] == found["summary"]
    assert (tmp_path / "probe.md").read_text().startswith("# Which objective?\n\nTake sft: ")

    assert probed(tmp_path) == found
    assert trained == ["sft", "dft"], "the second time nothing is left to do"
    assert probed(tmp_path, "probe.objectives=[{kind: dft}, {kind: sft}]")["recommended"] == {"kind": "sft"}
    assert trained == ["sft", "dft"]
    probed(tmp_path, "train.learning_rate=1e-3")
    assert trained == ["sft", "dft"] * 2, "another learning rate gives other figures"


def test_trainings_have_the_probes_settings_and_the_run_keeps_its_own(tmp_path, trained):
    write_rewrites(tmp_path)
    place = probed(tmp_path, "probe.responses=expert", "train.epochs=7", "train.learning_rate=1e-3")["folder"]
    with open(f"{place}/sft/config.resolved.yaml") as file:
        own = yaml.safe_load(file)["train"]
    assert (own["objective"]["kind"], own["responses"], own["learning_rate"]) == ("sft", "expert", 1e-3)
    assert (own["epochs"], own["schedule"], own["held_out_rows"], own["gap_rows"]) == (1, "constant", 10, 10)
    kept = yaml.safe_load((tmp_path / "config.resolved.yaml").read_text())["train"]
    assert (kept["objective"]["kind"], kept["responses"], kept["epochs"]) == ("dft", "kept", 7)


@pytest.mark.parametrize("keep", [False, True])
def test_models_are_deleted_unless_they_are_kept(tmp_path, trained, keep):
    write_rewrites(tmp_path)
    probed(tmp_path, f"probe.keep_models={keep}")
    assert len(list(tmp_path.glob("probe/*/*/model"))) == 2 * keep
    assert not list(tmp_path.glob("probe/*/*/checkpoints"))


def test_a_probe_that_was_stopped_goes_on_with_the_next_objective(tmp_path, trained):
    write_rewrites(tmp_path)
    with pytest.raises(TrainingError, match="power failed"):
        probed(tmp_path, "probe.objectives=[{kind: sft}, {kind: power}, {kind: dft}]")
    assert probed(tmp_path)["verdict"] == "best"
    assert trained == ["sft", "power", "dft"]


def test_without_rewrites_it_says_what_to_run_first_and_leaves_no_folder(tmp_path, trained):
    with pytest.raises(
        RunFolderError, match=r"no finished rewrites; run jobs.rewrite .* or probe on .*responses=expert"
    ):
        probed(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data.path=.*nothing.jsonl"):
        probed(tmp_path / "run", "probe.responses=expert", f"data.path={tmp_path / 'nothing.jsonl'}")
    assert not (tmp_path / "run").exists()
    assert trained == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probe.objectives=[{kind: sft}]", "probe.objectives=.* at least 2"),
        (
            "probe.objectives=[{kind: sft}, {kind: power, exponent: 0.5}, {kind: power}]",
            "probe.objectives names power more than once",
        ),
        ("probe.objectives=[{kind: sft}, {kind: dtf}]", "probe.objectives.*dtf"),
        ("probe.steps=0", "probe.steps=0"),
        ("train.gap_from=held_out", "train.gap_from=held_out has no rows to draw from; set train.held_out_rows"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        load(None, ["run=x", setting])


def test_objectives_that_need_log_probs_which_an_engine_does_not_give_are_refused():
    remote = ("engine.kind=remote", "engine.remote.url=http://x/v1", "engine.remote.model=m")
    remote = (*remote, "rewrite.temperature=0.7", "train.objective.kind=sft")
    with pytest.raises(ConfigError, match=r"probe.objectives: objective kind=is needs the samples' log-probs"):
        load(None, ["run=x", *remote, "probe.objectives=[{kind: sft}, {kind: is}]"])
