"""The list of stages in a recipe: forms, names, and error messages."""

import re
from pathlib import Path

import pytest

from offsft.config.loading import describe, dump, load
from offsft.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


def stages(*overrides, path=None):
    recipe = load(path, [*([] if path else ["run=x"]), *overrides])
    return [(stage.kind, stage.name, getattr(stage, "waves", None)) for stage in recipe.rewrite.stages]


def test_the_default_cascade_is_self_guided_expert():
    assert stages() == [("self", "self", [1, 1, 2, 4]), ("guided", "guided", [1, 1, 2]), ("expert", "expert", None)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["rewrite.stages=[{kind: expert}]"], ["expert"]),
        (["rewrite.stages=[{kind: guided}, {kind: self}, {kind: expert}]"], ["guided", "self", "expert"]),
        (["rewrite.stages=[{kind: self}, {kind: self, name: again}, {kind: expert}]"], ["self", "again", "expert"]),
        (["rewrite.stages=[{kind: 'a.b:Mine', shown: 0.5}, {kind: expert}]"], ["Mine", "expert"]),
        (["rewrite.stages=[{kind: self}]", "rewrite.expert=none"], ["self"]),
        (["rewrite.expert=none"], ["self", "guided"]),
        (["rewrite.expert=none", "rewrite.stages=[]"], []),
    ],
)
def test_any_stages_in_any_order(settings, expected):
    assert [name for _, name, _ in stages(*settings)] == expected


def test_a_stage_is_changed_by_its_name_over_the_default_and_over_a_list(tmp_path):
    assert stages("rewrite.stages.self.waves=[8]")[0] == ("self", "self", [8])
    listed = "rewrite.stages=[{kind: self, name: mine}, {kind: expert}]"
    assert stages(listed, "rewrite.stages.mine.waves=[3]")[0] == ("self", "mine", [3])
    (tmp_path / "more.yaml").write_text(
        f"extends: {RECIPES / 'demo.yaml'}\nrewrite: {{stages: {{guided: {{waves: [5]}}}}}}\n"
    )
    assert [waves for *_, waves in stages(path=tmp_path / "more.yaml")] == [[2, 2], [5], None]
    arms = load(
        None,
        [
            "run=x",
            "compare.arms=[{name: a, responses: kept, objective: {kind: sft}}]",
            "compare.arms.a.learning_rate=1",
        ],
    )
    assert arms.compare.arms[0].learning_rate == 1


def test_the_recipes_mean_what_they_meant():
    demo, code = load(RECIPES / "demo.yaml", []).rewrite.stages, load(RECIPES / "code.yaml", []).rewrite.stages
    assert [stage.model_dump() for stage in demo] == [
        {"kind": "self", "name": "self", "waves": [2, 2]},
        {"kind": "guided", "name": "guided", "waves": [2], "min_share": 0.7},
        {"kind": "expert", "name": "expert"},
    ]
    assert [getattr(stage, "min_share", None) for stage in code] == [None, 0.0, None]


def test_a_resolved_recipe_reads_as_itself(tmp_path):
    recipe = load(
        None, ["run=x", "rewrite.stages=[{kind: 'a.b:Mine', shown: 0.5}, {kind: guided, name: g}, {kind: expert}]"]
    )
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml", []) == recipe


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["rewrite.self_waves=[2, 2]", "rewrite.guided_waves=[2]", "rewrite.guided_min_share=0.7"],
            "`rewrite.stages: [{kind: self, waves: [2, 2]}, {kind: guided, waves: [2], min_share: 0.7}, {kind: expert}]`",
        ),
        (["rewrite.guided_waves=[]"], "`rewrite.stages: [{kind: self, waves: [1, 1, 2, 4]}, {kind: expert}]`"),
        (["rewrite.self_waves=[]", "rewrite.guided_waves=[]"], "`rewrite.stages: [{kind: expert}]`"),
    ],
)
def test_the_earlier_form_is_refused_with_the_line_that_replaces_it(settings, line):
    with pytest.raises(ConfigError) as refused:
        stages(*settings)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    new = re.search(r"`rewrite\.stages: (.*)`", str(refused.value))
    assert new is not None
    assert stages(f"rewrite.stages={new[1]}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "rewrite.stages=[{kind: self}]",
            r"must end in \{kind: expert\} and have it once, and it is self; .*expert=none",
        ),
        ("rewrite.stages=[]", r"must end in \{kind: expert\} and have it once, and it is empty"),
        ("rewrite.stages=[{kind: expert}, {kind: self}]", r"must end in \{kind: expert\} .* it is expert, self"),
        (
            "rewrite.stages=[{kind: self}, {kind: self}, {kind: expert}]",
            "holds self more than once; give each stage a `name`",
        ),
        (
            "rewrite.stages=[{kind: slef}, {kind: expert}]",
            r"kind=slef is none of self, .*, guided, expert.*did you mean self\?",
        ),
        ("rewrite.stages=[{waves: [1]}, {kind: expert}]", "kind=None is none of"),
        ("rewrite.stages=[self, {kind: expert}]", r"'self' is not a stage; write it as \{kind: self\}"),
        ("rewrite.stages=3", r"rewrite\.stages=3: input should be a valid list"),
        ("rewrite.stages=[{kind: self, wavs: [1]}, {kind: expert}]", r"did you mean rewrite\.stages\.self\.waves\?"),
        (
            "rewrite.stages=[{kind: self, min_share: 1}, {kind: expert}]",
            r"rewrite\.stages\.self\.min_share=1: .*another kind has it",
        ),
        (
            "rewrite.stages=[{kind: self, waves: [0]}, {kind: expert}]",
            r"rewrite\.stages\.self\.waves\.0=0: .*greater than or equal to 1",
        ),
        (
            "rewrite.stages=[{kind: self, waves: []}, {kind: expert}]",
            r"rewrite\.stages\.self\.waves=\[\]: .*at least 1 item",
        ),
        ("rewrite.stages=[{kind: self, name: a b}, {kind: expert}]", r"name='a b': string should match pattern"),
        (
            "rewrite.stages=[{kind: self, name: all}, {kind: expert}]",
            "cannot be named all, which names all stages together",
        ),
        (
            "rewrite.stages=[{kind: self, name: expert}, {kind: expert}]",
            "cannot be named expert, which names stages of kind expert",
        ),
        (
            "rewrite.stages=[{kind: guided, name: self}, {kind: expert}]",
            "cannot be named self, which names stages of kind self",
        ),
        (
            "rewrite.stages=[{kind: expert, name: demo}]",
            "cannot be named demo: `expert` is the source of all demonstrations",
        ),
        ("rewrite.stages.selv.waves=[1]", r"rewrite\.stages has no selv; it has self, guided, expert"),
        ("rewrite.stages.self.wavs=[1]", r"rewrite\.stages\.self\.wavs=.*did you mean rewrite\.stages\.self\.waves\?"),
        ("rewrite.stages.self=3", r"rewrite\.stages\.self=3 must be a mapping of settings"),
        (
            "train.source_weights.slef=2",
            r"train\.source_weights\.slef: no stage .* self, guided, expert; did you mean self\?",
        ),
        ("plan.accept.hint=0.5", r"plan\.accept\.hint: no stage of rewrite\.stages has this name"),
        ("train.source_weights.self=-1", r"train\.source_weights\.self=-1: .*greater than or equal to 0"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        stages(settings)
    assert "\n" not in str(refused.value)


def test_an_expert_that_is_left_out_cannot_also_be_listed():
    with pytest.raises(ConfigError, match=r"rewrite\.expert=none leaves out .* leave out one of them"):
        stages("rewrite.expert=none", "rewrite.stages=[{kind: self}, {kind: expert}]")


def test_every_setting_of_a_stage_is_listed_once():
    keys = [key for key, *_ in describe() if key.startswith("rewrite.stages")]
    own = "name waves prompt shown pool of shares mode url model key_variable asks keep_own max_tokens temperature"
    names = ["", *(f".<name>.{name}" for name in f"{own} concurrency tries timeout_s min_share".split())]
    assert keys == [f"rewrite.stages{name}" for name in names]
