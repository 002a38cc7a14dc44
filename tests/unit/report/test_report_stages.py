"""The report of a run with stages that it does not know, and with problems that none of them solved."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from report_fixture import gap_statistics, make_run

from offsft.data.tables import REWRITE_SCHEMA
from offsft.report import palette, words
from offsft.report.page import write_report
from offsft.report.summary import read_summary
from offsft.report.terminal import summary_table

NAMES = {"self": "hints", "guided": "second.try", "expert": "unsolved"}
NOTHING = {"response": "", "response_ids": [], "policy_logprobs": [], "behavior_logprobs": None}


def run_of_other_stages(folder):
    """The synthetic run, with other names for its stages and without demonstrations."""
    run = make_run(folder)
    rows = [row for path in sorted((run / "rewrites").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    for path in (run / "rewrites").glob("*.parquet"):
        path.unlink()
    for row in rows:
        row["source"] = NAMES[row["source"]]
        row["attempts"] = [attempt | {"stage": NAMES[attempt["stage"]]} for attempt in row["attempts"]]
        row.update(NOTHING if row["source"] == "unsolved" else {})
    pq.write_table(pa.Table.from_pylist(rows, schema=REWRITE_SCHEMA), run / "rewrites" / "part.parquet")
    result = json.loads((run / "rewrite.json").read_text())
    result["sources"] = {NAMES[source]: count for source, count in result["sources"].items()}
    result["gap"] = gap_statistics([row for row in rows if row["source"] != "unsolved"])
    (run / "rewrite.json").write_text(json.dumps(result))
    recipe = yaml.safe_load((run / "config.resolved.yaml").read_text())
    recipe["rewrite"]["stages"] = [{"kind": "a.b:C", "name": name} for name in ("hints", "second.try")]
    (run / "config.resolved.yaml").write_text(yaml.safe_dump(recipe))
    return run


def test_names_come_from_the_recipe_and_colours_by_position(tmp_path):
    run = run_of_other_stages(tmp_path / "run")
    write_report(run)
    page = (run / "report.html").read_text()
    for text in ("hints 40", "second.try 20", "unsolved 40"):
        assert text in page.replace("\u00a0", " "), text
    groups = "[[&#34;hints&#34;, &#34;stage-1&#34;], [&#34;second.try&#34;, &#34;stage-2&#34;], [&#34;unsolved&#34;, &#34;unsolved&#34;]]"
    assert groups in page
    assert "(hints, second.try, unsolved)" in page


def test_sentences_name_the_stages_and_what_they_left(tmp_path):
    summary = read_summary(run_of_other_stages(tmp_path / "run"))
    sentence = "Of 60 problems the policy solved 24 in the stage hints and 12 in the stage second.try; 24 are left out, as no stage solved them."
    assert words.sources_sentence(summary["rewrite"]) == sentence
    labels = [tile.label for tile in words.tiles(summary)]
    assert "solved in the stage hints" in labels
    assert "solved in the stage second.try" in labels


def test_the_terminal_shows_each_source_in_order(tmp_path):
    import io

    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=100).print(summary_table(read_summary(run_of_other_stages(tmp_path / "run"))))
    shown = stream.getvalue()
    assert shown.index("hints") < shown.index("second.try") < shown.index("unsolved")


def test_the_known_stages_read_as_before():
    rewrite = {"problems": 36, "sources": {"self": 8, "guided": 5, "expert": 23}}
    assert words.sources_sentence(rewrite) == (
        "Of 36 problems the policy solved 8 by itself and 5 more with the expert’s solution in view; 23 kept the"
        " demonstration."
    )
    assert (
        words.sources_sentence({"problems": 3, "sources": {"expert": 3}}) == "Of 3 problems 3 kept the demonstration."
    )


def test_more_stages_than_colours_begin_again():
    names = [f"s{number}" for number in range(8)]
    colors = palette.source_colors([*names, "expert"])
    assert list(colors.values()) == [*(f"stage_{number}" for number in (1, 2, 3, 4, 5, 6, 1, 2)), "expert"]
    assert all(color in palette.COLORS for color in colors.values())


def test_a_chain_of_verifiers_says_how_many_verdicts_it_turned():
    rewrite = {"second_opinions": {"verifiers": ["math", "judge"], "asked": 40, "turned": 12, "failed": 1}}
    assert words.opinions_sentence(rewrite) == (
        "The second opinion (judge) was asked about 40 responses that math held for wrong or without an answer, and turned 12 of"
        " them to correct; where it failed (1), the no stood."
    )
    assert words.opinions_sentence({}) is None
