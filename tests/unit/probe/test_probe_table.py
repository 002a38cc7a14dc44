"""The probe's table, page and setting."""

import io
import json

import pytest
from probe_trials import OPEN, POLARISED, decided, text_of, trial
from rich.console import Console

from offsft.config.loading import load
from offsft.config.objective import Dft, Idft, Power, Sft
from offsft.probe.figures import OWN, TRAINED
from offsft.probe.table import as_json, markdown, setting_of, terminal_table
from offsft.storage.paths import write_json


@pytest.fixture
def trials():
    return [trial(Sft(), -0.4, own=-0.1), trial(Dft(), -0.05, own=0.01, seed=1), trial(Idft(), -0.1, own=0.0, seed=2)]


def test_the_page_has_the_recommendation_first_and_every_figure_below_it(trials):
    texts = {TRAINED: text_of(POLARISED), OWN: text_of(OPEN)}
    text = markdown(trials, decided(trials), texts, "train.objective.kind=sft")
    head, body = text.split("## Objectives")
    assert head.startswith(
        "# Which objective?\n\nTake sft: over 2 steps with it the negative log-likelihood of 40 held-out"
    )
    assert "\n\n    train.objective.kind=sft\n\n- Held-out responses have 18 tokens on average" in head
    table, curves, histogram = (part.strip().splitlines() for part in body.split("\n## "))
    assert [line.split(" | ")[0] for line in table[:5]] == ["| objective", "| ---", "| sft", "| dft", "| idft"]
    assert "| -0.400 (-0.40" in table[2]
    assert "| -0.100 | - | 1 ± 10% | 0.50 | 90% | 0% | 100% | 1.00 |" in table[2]
    assert table[4].endswith("| 90% | - | - | 1.00 |"), "its weights depend on more than a token's probability"
    assert curves[-3:] == [f"| {name} | 2.000 | 1.500 |" for name in ("sft", "dft", "idft")]
    assert [line.split(" | ")[0] for line in histogram[-2:]] == ["| trained", "| own"]
    assert histogram[-2].endswith(" | 77.8% |")
    for block in (table[:5], curves[-5:], histogram[-4:]):
        assert len({line.count("|") for line in block}) == 1


def test_the_table_fits_into_a_terminal(trials):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal_table(trials))
    (dft,) = (line.split() for line in console.export_text().splitlines() if line.split()[:1] == ["dft"])
    assert dft[:2] == ["dft", "-0.050"]
    assert dft[4:] == ["+0.010", "-", "1", "90%", "12%", "1.00"]


@pytest.mark.parametrize(
    ("objective", "current", "setting"),
    [
        (Sft(), Dft(), "train.objective.kind=sft"),
        (Power(exponent=0.3), Dft(), "'train.objective={kind: power, exponent: 0.3}'"),
        (Dft(frozen=True), Dft(), "'train.objective={kind: dft, frozen: true}'"),
        (Sft(), Power(exponent=0.3), "'train.objective={kind: sft}'"),
    ],
)
def test_the_setting_can_be_pasted(tmp_path, objective, current, setting):
    assert setting_of(objective, current) == setting
    path = tmp_path / "recipe.yaml"
    path.write_text(
        json.dumps(
            {"run": "x", "train": {"objective": current.model_dump(exclude_defaults=True) | {"kind": current.kind}}}
        )
    )
    assert load(path, [setting.strip("'")]).train.objective == objective


def test_a_trial_can_be_read_by_programs(trials, tmp_path):
    write_json(tmp_path / "a.json", [as_json(each) for each in trials])
    sft, _, idft = json.loads((tmp_path / "a.json").read_text())
    assert (sft["name"], sft["objective"]) == ("sft", {"kind": "sft"})
    assert sft["texts"]["trained"]["change"]["mean"] == pytest.approx(-0.4)
    assert len(sft["texts"]["trained"]["by_row"]) == 40
    assert sft["held_out"] == [[0, 2.0], [2, 1.4]]
    assert idft["weights"] is None
