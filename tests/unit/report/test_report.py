"""The report: summary.json, the terminal's table, figures and the page, from a synthetic run folder."""

import base64
import hashlib
import io
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_fixture import HOSTILE, NEEDLE, make_run
from rich.console import Console

from offsft.errors import RunFolderError
from offsft.report import numbers, palette, run_data, words
from offsft.report.page import write_report
from offsft.report.summary import read_summary, write_summary
from offsft.report.terminal import summary_table

STAGE_FILES = ("rewrite.json", "train.json", "evaluate.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "made-up")
    write_report(folder)
    return folder


class Page(HTMLParser):
    """The page as a browser would parse it: start tags with their attributes, scripts, and text outside of both."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.svg_text = ""
        self._in_svg = False
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._in_svg |= tag == "svg"

    def handle_endtag(self, tag: str) -> None:
        self._in_svg &= tag != "svg"

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data
            if self._in_svg:
                self.svg_text += data

    def rows(self, table: int) -> list[dict[str, Any]]:
        return json.loads(self.scripts[table])


# --- summary.json


def test_summary_merges_the_stages(run: Path) -> None:
    returned = write_summary(run)
    summary = json.loads((run / "summary.json").read_text())
    stages = [json.loads((run / name).read_text()) for name in STAGE_FILES]
    rewrite, train, evaluate = stages
    assert summary == returned
    gap = {key: rewrite.pop(key) for key in ("expert_mean_logprob", "kept_mean_logprob")}
    assert summary["gap"] == gap | {"before": rewrite.pop("gap")}
    assert (summary["rewrite"], summary["train"], summary["evaluate"]) == (rewrite, train, evaluate)
    assert summary["seconds"] == pytest.approx(143.2 + 96.4 + 61.0)
    assert not list(run.glob(".*partial"))


def test_summary_leaves_out_stages_that_have_not_finished(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('{"steps": 3, "seconds": 2.5}')
    assert write_summary(tmp_path) == {"train": {"steps": 3, "seconds": 2.5}, "seconds": 2.5}


def test_summary_has_null_for_what_could_not_be_measured(tmp_path: Path) -> None:
    (tmp_path / "evaluate.json").write_text('{"base": {"accuracy": 1.0, "stderr": NaN}, "seconds": 1}')
    write_summary(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["evaluate"]["base"] == {"accuracy": 1.0, "stderr": None}


@pytest.mark.parametrize("content", ['{"steps": 3', "[1, 2]"])
def test_broken_stage_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"train\.json .*run the stage again"):
        read_summary(tmp_path)


# --- numbers and words


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.count(1234567), "1,234,567"),
        (numbers.compact(950), "950"),
        (numbers.compact(14_204), "14.2 k"),
        (numbers.compact(3_140_000), "3.1 M"),
        (numbers.percent(0.375), "38 %"),
        (numbers.percent(0.375, 1), "37.5 %"),
        (numbers.points(-0.19), "−19.0"),
        (numbers.points(0.19), "+19.0"),
        (numbers.nats(-0.714), "−0.71"),
        (numbers.nats(0.9, sign=True), "+0.90"),
        (numbers.decimal(0.31274), "0.3127"),
        (numbers.decimal(0.00002), "2e−5"),
        (numbers.decimal(0), "0"),
    ],
)
def test_numbers(shown: str, expected: str) -> None:
    assert shown.replace("\u00a0", " ") == expected


def scored(base: float, trained: float, mean: float, stderr: float | None, samples: int = 1) -> dict[str, Any]:
    return {
        "evaluate": {
            "problems": 100,
            "samples": samples,
            "base": {"accuracy": base, "stderr": 0.04},
            "trained": {"accuracy": trained, "stderr": 0.05},
            "difference": {"mean": mean, "stderr": stderr},
        },
        "seconds": 10.0,
    }


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"seconds": 0}, "No stage of this run has finished yet."),
        (scored(0.18, 0.37, 0.19, 0.05), "37 % of held-out problems solved after training, 18 % before."),
        (scored(0.181, 0.184, 0.003, 0.05), "18.4 % of held-out problems solved after training, 18.1 % before."),
        (scored(0.18, 0.18, 0, 0.0), "18 % of held-out problems solved after training, 18 % before."),
        (scored(0.2, 0.4, 0.2, 0.1, 8), "40 % of answers to held-out problems correct after training, 20 % before."),
        ({"train": {"steps": 1}, "seconds": 1}, "Trained for 1 step; not evaluated yet."),
        (
            {"rewrite": {"problems": 8, "sources": {"self": 3, "guided": 1, "expert": 4}}, "seconds": 1},
            "50 % of the demonstrations rewritten in the policy’s own words.",
        ),
    ],
)
def test_headline(summary: dict[str, Any], expected: str) -> None:
    assert words.headline(summary).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("mean", "stderr", "expected"),
    [
        (0.19, 0.05, "A gain of 19.0 points on 100 problems, 3.8 standard errors of the difference."),
        (-0.19, 0.05, "A loss of 19.0 points on 100 problems, 3.8 standard errors of the difference."),
        (0.03, 0.05, "A change of +3.0 points on 100 problems, 0.6 standard errors: it may be chance."),
        (0.03, None, "A change of +3.0 points on 100 problems."),
        (0.0, 0.0, "A change of +0.0 points on 100 problems."),
    ],
)
def test_difference_is_called_a_gain_only_beyond_chance(mean: float, stderr: float | None, expected: str) -> None:
    assert words.difference_sentence({"mean": mean, "stderr": stderr}, 100) == expected


def test_table_for_the_terminal(run: Path) -> None:
    shown = rendered(read_summary(run))
    for line in (
        ["Rewriting", "self", "24", "40 %"],
        ["guided", "12", "20 %"],
        ["expert", "24", "40 %"],
        ["quarantined", "3", "2 duplicate, 1 bad_json"],
        ["tokens", "14,204", "tokens", "189 tokens/s, 1 min 36 s"],
        ["all stages", "5 min 01 s"],
    ):
        assert any(all(part in row for part in line) for row in shown.splitlines()), (line, shown)
    difference = read_summary(run)["evaluate"]["difference"]
    assert f"{difference['mean'] / difference['stderr']:.2f} standard errors" in shown


def test_table_says_what_has_not_run() -> None:
    shown = rendered({"seconds": 0})
    assert shown.count("has not run") == 3
    assert "Policy gap" not in shown


def rendered(summary: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(summary_table(summary))
    return stream.getvalue().replace("\u00a0", " ")


# --- reading the run


def test_rewrites_are_read_in_full_for_figures(run: Path) -> None:
    rows = pa.concat_tables([pq.read_table(path) for path in sorted((run / "rewrites").glob("*"))]).to_pylist()
    rewrites = run_data.read_rewrites(run / "rewrites")
    assert rewrites is not None
    np.testing.assert_allclose(rewrites.kept_logprobs, [np.mean(row["policy_logprobs"]) for row in rows], rtol=1e-5)
    np.testing.assert_allclose(rewrites.expert_logprobs, [row["expert_mean_logprob"] for row in rows])
    assert rewrites.sources.tolist() == [row["source"] for row in rows]
    attempts = [(attempt["stage"], attempt["outcome"]) for row in rows for attempt in row["attempts"]]
    assert rewrites.outcomes == {pair: attempts.count(pair) for pair in set(attempts)}
    assert [row["id"] for row in rewrites.carried.rows] == [row["id"] for row in rows]


def test_page_carries_the_first_rows_of_many(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "many")
    monkeypatch.setattr(run_data, "MAX_ROWS", 10)
    monkeypatch.setattr("offsft.report.page.draw", lambda *_: {})
    write_report(folder)
    page = Page(folder)
    assert [row["id"] for row in page.rows(0)] == [f"{index:08x}" for index in range(10)]
    assert "The page carries the first 10 of 60 rewrites" in page.text
    assert len(page.rows(1)) == 10
    rewrites = run_data.read_rewrites(folder / "rewrites")
    assert rewrites is not None
    assert len(rewrites.sources) == 60, "figures must see every row"
    assert "The page carries" not in Page(run).text


def test_page_carries_fewer_rows_when_they_are_long(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_data, "MAX_ROW_CHARACTERS", 5000)
    rewrites = run_data.read_rewrites(run / "rewrites")
    assert rewrites is not None
    assert rewrites.carried.total == 60
    assert 1 <= len(rewrites.carried.rows) < 20


def test_long_texts_are_cut_and_say_so() -> None:
    cut = run_data.cut_texts({"attempts": [{"text": "x" * 100_000, "tokens": 7}], "id": "a"})
    assert cut["attempts"][0]["text"] == "x" * run_data.MAX_TEXT_CHARACTERS + " … (94,000 more characters)"
    assert (cut["attempts"][0]["tokens"], cut["id"]) == (7, "a")


def test_metrics_of_a_restarted_training(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step":1,"loss/nll":3}\n{"step":2,"loss/nll":9}\n{"step":2,"loss/nll":2}\n{"step":3}\n{"step":4,"lo'
    )
    metrics = run_data.read_metrics(path)
    assert metrics["step"].tolist() == [1, 2, 3]
    assert metrics["loss/nll"].tolist()[:2] == [3, 2]
    assert math.isnan(metrics["loss/nll"][2])
    path.write_text('{"step":1}\nnot json\n')
    with pytest.raises(RunFolderError, match="line 2"):
        run_data.read_metrics(path)


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "broken")
    (folder / "rewrites" / "001.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(RunFolderError, match=r"001\.parquet cannot be read"):
        write_report(folder)


def test_missing_column_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "rewrites"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"], "source": ["self"]}), folder / "0.parquet")
    with pytest.raises(RunFolderError, match=r"lacks answer, attempts"):
        run_data.read_rewrites(folder)


@pytest.mark.parametrize(
    ("base", "trained", "group"),
    [
        (["wrong"], ["correct"], "improved"),
        (["correct"], ["truncated"], "worsened"),
        (["correct"], ["correct"], "solved"),
        (["wrong"], ["no_answer"], "unsolved"),
        (["correct", "wrong"], ["wrong", "correct"], "solved"),
        (["correct", "wrong"], ["correct", "correct"], "improved"),
        (["correct"], None, "solved"),
        (["wrong"], None, "unsolved"),
    ],
)
def test_accuracy_group(base: list[str], trained: list[str] | None, group: str) -> None:
    row: dict[str, Any] = {"id": "a", "base": [{"outcome": outcome} for outcome in base]}
    if trained is not None:
        row["trained"] = [{"outcome": outcome} for outcome in trained]
    assert run_data.accuracy_group(row) == group


# --- the page


def test_untrusted_text_stays_text(run: Path) -> None:
    page = Page(run)
    assert page.rows(0)[1]["problem"] == HOSTILE
    assert page.rows(1)[0]["problem"] == HOSTILE
    assert page.text.count(HOSTILE) == 1, "the quarantined row, as it stood"
    assert "window.injected" not in page.scripts[2]
    assert len(page.scripts) == 3
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert not [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]


def test_page_needs_no_network_and_runs_only_its_own_script(run: Path) -> None:
    page = Page(run)
    links = [
        value
        for _, attributes in page.tags
        for name in ("src", "href", "xlink:href")
        if (value := attributes.get(name))
    ]
    assert links
    assert all(link.startswith(("#", "data:", "figures/")) for link in links), links
    assert "@import" not in page.html
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[2].encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_what_the_hint_did_is_told_by_source(run: Path) -> None:
    summary = read_summary(run)
    own, guided = words.measure_rows(summary["rewrite"])
    assert (own.name, own.unsupported, own.expert_length) == ("self", "7\u00a0%", "1.5")
    assert (guided.name, guided.unsupported, guided.false_steps) == ("guided", "25\u00a0%", "0\u00a0%")
    assert guided.own_length == "–", "what was not measured"
    sentence = words.refused_sentence(summary["rewrite"])
    assert sentence is not None
    assert "11 were refused" in sentence
    assert "7 false step and 4 leaked" in sentence
    assert sentence in " ".join(Page(run).text.split())
    assert words.measure_rows({"problems": 1}) == [], "a run of an earlier version"
    assert words.refused_sentence({"attempts": {"self": {"correct": 3}}}) is None


def test_rows_to_browse(run: Path) -> None:
    page = Page(run)
    rewrites, answers = page.rows(0), page.rows(1)
    assert len(rewrites) == 60
    assert [NEEDLE in row["problem"] for row in rewrites].count(True) == 1
    assert rewrites[3]["attempts"][-1]["outcome"] == "correct"
    assert "policy_logprobs" not in rewrites[0]
    assert len(answers) == 40
    assert all(row["base"][0]["response"].startswith(f"There were {int(row['answer']) - 10} ") for row in answers)
    assert all(row["trained"][0]["response"].startswith(f"There were {int(row['answer']) - 10} ") for row in answers)


def test_every_figure_is_on_the_page_and_saved(run: Path) -> None:
    from matplotlib.image import imread

    page = Page(run)
    described = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(described) == 14, "seven figures, each for wide and for narrow screens"
    assert all(attributes.get("aria-label") for attributes in described)
    assert {path.stem for path in (run / "figures").iterdir()} == {
        "shares",
        "gap",
        "weights",
        "training",
        "held_out",
        "accuracy",
        "outcomes",
    }
    for path in (run / "figures").iterdir():
        pixels = imread(path)
        assert pixels.shape[1] == 1520
        assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 20, f"{path.name} is blank"
    rewrites = run_data.read_rewrites(run / "rewrites")
    assert rewrites is not None
    evaluate = json.loads((run / "evaluate.json").read_text())
    written = page.svg_text.replace("\u00a0", " ")
    for model in ("base", "trained"):
        assert f"{100 * evaluate[model]['accuracy']:.1f} % ± {100 * evaluate[model]['stderr']:.1f}" in written
    for logprobs in (rewrites.expert_logprobs, rewrites.kept_logprobs):
        assert f"median −{-np.median(logprobs):.2f}" in written
    for source, share in (("self", 40), ("guided", 20), ("expert", 40)):
        assert f"{source} {share} %" in written
    for outcome in {outcome for _, outcome in rewrites.outcomes}:
        assert outcome.replace("_", " ") in written


def test_element_ids_are_unique(run: Path) -> None:
    ids = [attributes["id"] for _, attributes in Page(run).tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_figures_follow_the_colour_scheme(run: Path) -> None:
    page = Page(run)
    assert "fill: var(--stage-1)" in page.html
    drawn = page.html[page.html.index("<main") :]
    for color in palette.COLORS.values():
        assert color.light not in drawn


def test_empty_folder_says_so_in_every_section(tmp_path: Path) -> None:
    write_report(tmp_path)
    page = Page(tmp_path)
    for text in (
        "No stage of this run has finished yet.",
        "Rewriting has not run.",
        "Training has not run.",
        "Evaluation has not run.",
        "There are no rewrites to browse.",
        "There are no answers to browse.",
        "No row has been read yet.",
        "holds no config.resolved.yaml",
    ):
        assert text in page.text
    assert "svg" not in [tag for tag, _ in page.tags]


def test_unfinished_stages_show_what_is_there(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "unfinished")
    for name in STAGE_FILES:
        (folder / name).unlink()
    write_report(folder)
    page = Page(folder)
    assert "Rewriting has not finished: 60 problems so far." in page.text
    assert "Training has not finished." in page.text
    assert "Evaluation has not finished." in page.text
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        "shares",
        "gap",
        "training",
        "held_out",
        "outcomes",
    }


def test_base_model_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "base", samples=3)
    evaluate = json.loads((folder / "evaluate.json").read_text())
    del evaluate["trained"], evaluate["difference"]
    (folder / "evaluate.json").write_text(json.dumps(evaluate))
    for path in (folder / "evaluation" / "trained").iterdir():
        path.unlink()
    write_report(folder)
    page = Page(folder)
    assert "of answers to held-out problems correct before training" in page.text
    assert {row["group"] for row in page.rows(1)} == {"solved", "unsolved"}
    assert all(len(row["base"]) == 3 and "trained" not in row for row in page.rows(1))


# --- colours


def test_text_is_readable_on_every_colour() -> None:
    for name, color in palette.COLORS.items():
        if name == "grid" or name.startswith("on_") or name in ("ink", "muted", "paper"):
            continue
        ink = palette.COLORS[color.ink]
        assert contrast(color.light, ink.light) >= 4.0, name
        assert contrast(color.dark, ink.dark) >= 4.0, name
    for name in ("ink", "muted"):
        assert contrast(palette.COLORS[name].light, palette.COLORS["paper"].light) >= 4.5
        assert contrast(palette.COLORS[name].dark, palette.COLORS["paper"].dark) >= 4.5


def test_light_colours_identify_their_entry() -> None:
    assert len({color.light for color in palette.COLORS.values()}) == len(palette.COLORS)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two `#rrggbb` colours."""

    def luminance(color: str) -> float:
        channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_importing_the_report_does_not_import_matplotlib() -> None:
    code = "import sys, offsft.report; sys.exit(bool({'matplotlib', 'ray', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_training_cost_elsewhere_is_said_with_intervals():
    kl = {"mean": 0.0312, "stderr": 0.01, "low": 0.012, "high": 0.05}
    lost = {"suite": "code", "mean": -0.02, "stderr": 0.01, "low": -0.04, "high": 0.0}
    assert words.cost_sentences({"kl": {"trained": kl}, "retention": [lost]}) == [
        "KL from the base model, on its own samples: 0.031 (0.012 to 0.050) nats per token.",
        "Change on code: −2.0 (−4.0 to +0.0) points.",
    ]
    assert words.cost_sentences(None) == words.cost_sentences({"base": {}}) == [], "results of an earlier version"
