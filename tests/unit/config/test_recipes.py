"""Recipes: overriding, refusing, describing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from offsft.config import Recipe
from offsft.config.loading import describe, dump, load
from offsft.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_that_comes_with_the_project_is_valid(path):
    assert load(path, []).run


def test_an_override_replaces_the_recipe_and_keeps_the_rest(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("run: a\ntrain: {zero_stage: 1, workers: 2}\n")
    recipe = load(path, ["train.zero_stage=3", "train.learning_rate=2e-4"])
    assert (recipe.train.zero_stage, recipe.train.workers, recipe.train.learning_rate) == (3, 2, 2e-4)


def test_a_dumped_recipe_reads_back_as_itself(tmp_path):
    recipe = load(None, ["run=a", "train.objective.kind=sft", "rewrite.stages.self.waves=[3]"])
    path = tmp_path / "r.yaml"
    path.write_text(dump(recipe))
    assert load(path, []) == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"run is not set; add `run: \.\.\.`"),
        (["run=a", "train.zero_stages=3"], r"train\.zero_stages=3: there is no such setting; did you mean train\.zero_stage\?"),
        (["run=a", "engine.actors=many"], r"engine\.actors='many': input should be a valid integer"),
        (["run=a", "train.zero_stage=7"], r"train\.zero_stage=7: input should be 0, 1, 2 or 3"),
        (["run=a", "rewrite.stages.self.waves=[0]"], r"rewrite\.stages\.self\.waves\.0=0: .* greater than or equal to 1"),
        (["run=a", "train"], r"'train' is not an override; write key=value"),
        (["run=a", "seed.x=1", "seed=["], r"the value of 'seed=\[' is not valid YAML"),
        (["run=a", "rewrite.max_tokens=5000"], r"rewrite\.max_tokens=5000 leaves no room for a prompt"),
        (["run=a", "train.micro_batch_tokens=20"], r"train\.micro_batch_tokens=20 cannot hold a row of train\.max_tokens=1024"),
        (["run=a", "train.workers=9", "train.global_batch=8"], r"train\.global_batch=8 .* at least 9"),
        (["run=a", "evaluate.temperature=0", "evaluate.samples=4"], r"set evaluate\.samples=1"),
        (["run=a", "prompt.guided='{problem}'"], r"prompt\.guided does not contain \{solution\}"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_its_path_and_what_to_do(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(None, overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"run: [", "is not valid YAML"), (b"- 1", "must be a mapping"), (b"\xff\xfe\x00", "cannot be read")],
)
def test_a_recipe_that_is_no_recipe_is_refused(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(path, [])


def test_every_setting_is_documented_with_a_unit_of_sense():
    settings = list(describe())
    assert len({key for key, *_ in settings}) == len(settings)
    for key, kind, default, meaning in settings:
        assert kind, key
        assert default, key
        assert key.endswith("objective.kind") or re.search(r"[.;)]$", meaning), (
            f"{key} lacks documentation: {meaning!r}"
        )


def test_help_answers_without_loading_anything_heavy():
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "import jobs.pipeline as job\n"
        "from jobs.cli import run\n"
        "try: run(('rewrite',), job.__doc__)\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'ray', 'torch', 'vllm', 'deepspeed', 'transformers', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=RECIPES.parents[1])
    assert done.returncode == 0, done.stderr
    assert "train.learning_rate  (float > 0; default 2e-05)" in done.stdout


def test_a_wrong_setting_ends_a_job_with_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "jobs.pipeline", "run=a", "train.zero_stages=3"],
        capture_output=True,
        text=True,
        cwd=RECIPES.parents[1],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: train.zero_stages=3: there is no such setting")
    assert len(done.stderr.splitlines()) == 1


def test_settings_cannot_change_after_parsing():
    recipe = Recipe(run="a")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_a_recipe_may_extend_another(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "run: runs/a\ntrain: {epochs: 3, objective: {kind: is, cap: 4}}\ndata: {limit: 5}\n"
    )
    (tmp_path / "more.yaml").write_text("extends: base.yaml\ntrain: {workers: 2, objective: {kind: dft}}\n")
    recipe = load(tmp_path / "more.yaml", ["run=runs/b"])
    assert (recipe.run, recipe.train.epochs, recipe.train.workers, recipe.data.limit) == ("runs/b", 3, 2, 5)
    assert recipe.train.objective.kind == "dft"


@pytest.mark.parametrize("base", ["missing.yaml", "more.yaml", "[1]"])
def test_extending_what_is_not_there_or_itself_is_refused(tmp_path, base):
    (tmp_path / "more.yaml").write_text(f"extends: {base}\nrun: x\n")
    with pytest.raises(ConfigError, match=r"does not exist|must name another recipe"):
        load(tmp_path / "more.yaml", [])


def test_the_arms_of_a_comparison():
    assert [arm.name for arm in load(None, ["run=x"]).compare.arms][:2] == ["SFT", "DFT"]
    twice = "compare.arms=[{name: a, responses: kept, objective: {kind: sft}}, {name: a, responses: expert, objective: {kind: sft}}]"
    with pytest.raises(ConfigError, match="names a more than once"):
        load(None, ["run=x", twice])
    with pytest.raises(ConfigError, match=r"compare.arms.a.responses='both'"):
        load(None, ["run=x", "compare.arms=[{name: a, responses: both, objective: {kind: sft}}]"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.gpus=4"], r"engine\.gpus=4 does not go with engine\.tensor_parallel=1: .* give both the same number"),
        (["engine.gpus=1", "engine.tensor_parallel=8"], r"engine\.gpus=1 does not go with engine\.tensor_parallel=8"),
        (["engine.actors=4", "engine.actors_max=2"], r"engine\.actors_max=2 is below engine\.actors=4"),
        (["engine.node_labels={group: 'in(a,b)'}"], r"engine\.node_labels\.group='in\(a,b\)': string should match"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(None, ["run=a", *overrides])
    assert load(None, ["run=a", "engine.gpus=8", "engine.tensor_parallel=8"]).engine.tensor_parallel == 8
