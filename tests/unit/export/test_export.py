"""Rewrites as other trainers' data sets: what is written, what is left out, and that their own readers take it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config.loading import dump, load
from offsft.errors import ConfigError, DataError, RunFolderError
from offsft.export.run import export
from offsft.storage.paths import at, read_table, write_bytes, write_table

ROOT = Path(__file__).parents[3]


def attempt(stage, outcome, text="", tokens=5):
    return {"stage": stage, "outcome": outcome, "tokens": tokens, "text": text or None, "why": None}


def rewrite(number, source, *attempts, response=None):
    return {
        "id": f"id-{number}",
        "problem": f"How many, {number} and {{solution}}?",
        "answer": str(number),
        "solution": f"It is \\boxed{{{number}}}.",
        "source": source,
        "response": f"I say \\boxed{{{number}}}." if response is None else response,
        "attempts": list(attempts),
    }


ROWS = [
    rewrite(0, "self", attempt("self", "wrong", "I say \\boxed{9}."), attempt("self", "correct", "I say \\boxed{0}.")),
    rewrite(1, "self", attempt("self", "correct", "I say \\boxed{1}.")),
    rewrite(
        2,
        "guided",
        attempt("self", "no_answer", "Hm."),
        attempt("self", "truncated", "Let us"),
        attempt("guided", "leaked", "As you said, 2."),
        attempt("guided", "correct", "I say \\boxed{2}."),
    ),
    rewrite(3, "guided", attempt("self", "truncated", "So"), attempt("guided", "unsupported", "9. So \\boxed{3}")),
    rewrite(4, "expert", attempt("self", "wrong", "\\boxed{8}"), attempt("self", "skipped", tokens=0)),
]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def make_run(folder, *overrides, rows=ROWS, checks=None):
    (folder / "rewrites").mkdir(parents=True)
    (folder / "problems").mkdir()
    (folder / "config.resolved.yaml").write_text(dump(load(None, [f"run={folder}", *overrides])))
    if rows:
        write_table(pa.Table.from_pylist(rows[:3]), folder / "rewrites" / "a.parquet")
        write_table(pa.Table.from_pylist(rows[3:]), folder / "rewrites" / "b.parquet")
    problems = [{"id": row["id"], "check": (checks or {}).get(row["id"])} for row in rows]
    write_table(
        pa.Table.from_pylist(problems, pa.schema([("id", pa.string()), ("check", pa.string())])),
        folder / "problems" / "a.parquet",
    )
    (folder / "rewrite.json").write_text("{}")
    return folder


def exported(run, kind, name="out.jsonl", **more):
    """The records of a file, and what was said of it."""
    path = run.parent / name
    done = export({"run": str(run), "format": kind, "path": str(path), **more})
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist(), done
    return [json.loads(line) for line in path.read_text().splitlines()], done


ASKED = "How many, 0 and {solution}?\n\nSolve the problem step by step, and put the final answer in \\boxed{}."
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "I say \\boxed{0}."}]


def test_a_conversation_has_the_plain_prompt_and_what_was_kept(run):
    records, done = exported(run, "messages")
    assert records[0] == {"messages": TURNS, "id": "id-0", "source": "self"}
    assert [record["source"] for record in records] == ["self", "self", "guided", "guided"]
    assert done.told() == f"4 rows in {run.parent / 'out.jsonl'} (self 2, guided 2); left out: 1 of the source expert"


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_the_other_formats_hold_the_same_turns(run, name):
    (first, *_), _ = exported(run, "prompt_completion", name)
    assert (first["prompt"], first["completion"]) == (TURNS[:1], TURNS[1:])
    (first, *_), _ = exported(run, "sharegpt", f"s-{name}")
    assert first["conversations"] == [{"from": "human", "value": ASKED}, {"from": "gpt", "value": "I say \\boxed{0}."}]


def test_a_system_message_of_the_recipe_comes_first(tmp_path):
    run = make_run(tmp_path / "run", "prompt.system=Be brief.")
    records, _ = exported(run, "messages")
    assert records[0]["messages"] == [{"role": "system", "content": "Be brief."}, *TURNS]
    records, _ = exported(run, "sharegpt", "s.jsonl")
    assert records[0]["conversations"][0] == {"from": "system", "value": "Be brief."}


@pytest.mark.parametrize(("sources", "ids"), [("[guided]", [2, 3]), ("guided", [2, 3]), ("all", [0, 1, 2, 3, 4])])
def test_sources_are_chosen_by_the_stages_names(run, sources, ids):
    records, _ = exported(run, "messages", sources=sources)
    assert [record["id"] for record in records] == [f"id-{number}" for number in ids]


def test_a_pair_is_a_kept_response_and_a_refused_attempt_the_policys_own_first(run):
    records, done = exported(run, "dpo")
    rejected = {record["id"]: record["rejected"][0]["content"] for record in records}
    # A cut response is no answer to learn from, and none was refused for problem 1.
    assert rejected == {"id-0": "I say \\boxed{9}.", "id-2": "Hm.", "id-3": "9. So \\boxed{3}"}
    assert (records[0]["prompt"], records[0]["chosen"]) == (TURNS[:1], TURNS[1:])
    assert done.left_out == {"without a refused attempt that was finished": 1, "of the source expert": 1}


def test_reinforcement_learning_gets_every_problem_with_its_pass_rate(run):
    records, done = exported(run, "rl", "out.parquet")
    assert [record["extra_info"]["pass_rate"] for record in records] == [0.5, 1.0, 0.0, 0.0, 0.0]
    assert [record["extra_info"]["samples"] for record in records] == [2, 1, 2, 1, 1]
    assert [record["extra_info"]["index"] for record in records] == [0, 1, 2, 3, 4]
    assert records[4]["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert (records[0]["data_source"], records[0]["ability"], records[0]["prompt"]) == ("offsft/run", "math", TURNS[:1])
    assert done.left_out == {}
    records, _ = exported(run, "rl", "named.parquet", data_source="openai/gsm8k")
    assert {record["data_source"] for record in records} == {"openai/gsm8k"}


def test_of_code_the_tests_are_the_reference(tmp_path):
    rows = [{**rewrite(0, "self"), "answer": ""}]
    check = json.dumps({"tests": "assert f(1) == 2"})
    run = make_run(tmp_path / "run", "domain=code", rows=rows, checks={"id-0": check})
    (record,), _ = exported(run, "rl", "out.parquet")
    assert (record["reward_model"]["ground_truth"], record["ability"]) == (check, "code")
    assert record["extra_info"]["pass_rate"] is None


def test_a_problem_that_no_stage_solved_has_no_conversation(tmp_path):
    rows = [*ROWS[:4], rewrite(5, "unsolved", attempt("self", "wrong", "no"), response="")]
    run = make_run(tmp_path / "run", "rewrite.expert=none", rows=rows)
    records, done = exported(run, "messages", sources="all")
    assert len(records) == 4
    assert done.left_out == {"of the source unsolved": 1}
    assert len(exported(run, "rl", "out.parquet")[0]) == 5


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_trl_takes_the_conversations_as_they_are(run, ending, tmp_path):
    datasets = pytest.importorskip("datasets")
    from trl.data_utils import apply_chat_template, is_conversational

    tokenizer, end = byte_tokenizer(), "<|end|>"
    for kind, columns in (
        ("messages", {"text"}),
        ("prompt_completion", {"prompt", "completion"}),
        ("dpo", {"prompt", "chosen", "rejected"}),
    ):
        exported(run, kind, f"{kind}.{ending}")
        loader = "json" if ending == "jsonl" else ending
        loaded = datasets.load_dataset(
            loader, data_files=str(run.parent / f"{kind}.{ending}"), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert is_conversational(loaded[0])
        rendered = apply_chat_template(loaded[0], tokenizer)
        assert columns <= rendered.keys()
        assert "".join(rendered[name] for name in sorted(columns & {"text", "chosen", "completion"})).endswith(end)


def test_verl_finds_its_columns(run, tmp_path):
    """Those that its RLHFDataset and reward manager read, as its own data_preprocess scripts write them."""
    datasets = pytest.importorskip("datasets")
    exported(run, "rl", "out.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(run.parent / "out.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    row = loaded[0]
    assert row.keys() == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert byte_tokenizer().apply_chat_template(row["prompt"], tokenize=False).startswith("<|user|>How many")
    assert row["reward_model"].keys() == {"style", "ground_truth"}
    assert row["extra_info"]["index"] == 0


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"run": ""}, ConfigError, "run is not set; give run="),
        ({"format": ""}, ConfigError, "format is not set; give format=, one of messages"),
        ({"format": "mesages"}, ConfigError, "format=mesages is none of messages, .*; did you mean messages?"),
        ({"path": ""}, ConfigError, "path is not set"),
        ({"path": "out.csv"}, ConfigError, r"path=out.csv does not end in \.jsonl or \.parquet"),
        ({"format": "rl"}, ConfigError, r"does not end in \.parquet, which format=rl is written as"),
        ({"path": "gs://bucket/out.jsonl"}, ConfigError, "path=gs://bucket/out.jsonl is not a place"),
        ({"sources": "[slef]"}, ConfigError, r"sources=\[slef\]: the run has no stage slef; it has self, guided, expert"),
        ({"sources": "[]"}, ConfigError, r"sources=\[\] is no list of stages' names; write it as sources=\[self,guided,expert\]"),
        ({"run": "/nowhere"}, RunFolderError, "run=/nowhere holds no run"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_one_line_and_nothing_is_written(run, tmp_path, settings, kind, message):
    given = {"run": str(run), "format": "messages", "path": str(tmp_path / "out.jsonl"), **settings}
    with pytest.raises(kind, match=message) as refused:
        export(given)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_exists_is_left_as_it_is(run):
    exported(run, "messages")
    before = (run.parent / "out.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"out\.jsonl exists already; give another path"):
        exported(run, "dpo")
    assert (run.parent / "out.jsonl").read_text() == before


def test_a_run_without_finished_rewrites_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"has no rewrites; make them with jobs\.rewrite"):
        exported(make_run(tmp_path / "run", rows=[]), "messages")
    begun = make_run(tmp_path / "begun")
    (begun / "rewrite.json").unlink()
    with pytest.raises(RunFolderError, match="its rewriting has not finished"):
        exported(begun, "messages")


def test_pairs_need_texts_and_a_row_that_is_left(tmp_path):
    silent = make_run(tmp_path / "silent", "rewrite.keep_text=false")
    with pytest.raises(ConfigError, match=r"format=dpo needs the texts .* rewrite\.keep_text=true"):
        exported(silent, "dpo")
    nothing = make_run(tmp_path / "nothing", rows=ROWS[1:2])
    with pytest.raises(DataError, match=r"format=dpo: no row .* \(1 without a refused attempt"):
        exported(nothing, "dpo")
    assert list(tmp_path.glob("out*")) == list(tmp_path.glob(".out*")) == []


def test_run_and_file_may_lie_on_s3(s3, run):
    for path in run.rglob("*"):
        if path.is_file():
            write_bytes(at(f"{s3}/runs/one/{path.relative_to(run)}"), path.read_bytes())
    given = {"run": f"{s3}/runs/one", "format": "rl", "path": f"{s3}/data/out.parquet"}
    assert export(given).written == {"self": 2, "guided": 2, "expert": 1}
    records = read_table(at(given["path"])).to_pylist()
    local = exported(run, "rl", "out.parquet", data_source="offsft/one")[0]
    assert records == local
    with pytest.raises(ConfigError, match="exists already"):
        export(given)


def test_the_job_prints_what_it_has_written(run):
    command = [
        sys.executable,
        "-m",
        "jobs.export",
        f"run={run}",
        "format=messages",
        f"path={run.parent / 'x' / 'a.jsonl'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 rows in" in done.stdout
    refused = subprocess.run([*command, "formt=x"], capture_output=True, text=True, cwd=ROOT)
    assert (refused.returncode, "did you mean format?" in refused.stderr) == (2, True)
