"""What would be read is shown before anything is started: for people, and as JSON."""

import json

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from jobs.inspect import _inspect
from offsft.data import inspection
from offsft.errors import ConfigError, DataError

ROWS = [
    {"question": f"What is 1 + {n}?", "answer": f"1 + {n} = <<1+{n}={n + 1}>>{n + 1}\n#### {n + 1}", "id": n}
    for n in range(4)
]


@pytest.fixture
def shown(tmp_path, monkeypatch, capfdbinary):
    """A function that writes rows and returns what the job prints of them."""
    byte_tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(inspection, "resolve_model", lambda model: str(tmp_path / "model"))

    def show(rows, *settings, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        _inspect(None, [f"data.path={tmp_path / name}", *settings])
        return capfdbinary.readouterr().out.decode()

    return show


def test_json_has_files_format_rows_refusals_first_rows_and_tokens(shown, tmp_path):
    rows = [*ROWS, ROWS[0], {"question": "Q", "answer": "none"}, {"question": "Long?" * 900, "answer": "s\n#### 1"}]
    found = json.loads(shown(rows, "json=true", "data.format=auto"))
    assert list(found) == ["files", "format", "rows", "rejected", "first", "tokens"]
    assert found["files"] == [str(tmp_path / "rows.jsonl")]
    assert (found["format"], found["rows"]) == ("gsm8k", 4)
    assert found["rejected"] == {"duplicate": 1, "no_answer": 1, "too_long": 1}
    first = {
        "problem": "What is 1 + 0?",
        "solution": "1 + 0 = 1\nThe answer is \\boxed{1}.",
        "answer": "1",
        "check": {},
    }
    assert found["first"][0] == first
    assert len(found["first"]) == 4
    assert found["tokens"]["context"] == 1024
    assert found["tokens"]["prompt"]["max"] > 4500 > found["tokens"]["prompt"]["p50"] > 50
    assert found["tokens"]["too_long"] == 1


def test_people_see_the_same_with_an_example_of_each_refusal(shown):
    said = " ".join(shown([*ROWS, ROWS[0], {"question": "Q", "answer": "#### 1"}], "data.format=auto").split())
    assert "gsm8k: all of the first 6 rows have question, answer, as gsm8k has" in said
    assert "nothing is read from id" in said
    assert "4 usable, 2 refused" in said
    assert "1 duplicate, such as" in said
    assert "rows.jsonl:6: the solution is empty" in said
    assert "problem What is 1 + 0?" in said
    assert "rows do not fit into model.context_tokens=1,024" in said


def test_rows_behind_the_first_ones_are_measured_where_they_may_be_too_long(shown, monkeypatch):
    monkeypatch.setattr(inspection, "_MEASURED", 1)
    rows = [*ROWS, {"question": "Long?" * 900, "answer": "s\n#### 1"}]
    found = json.loads(shown(rows, "json=true", "data.format=gsm8k", "model.context_tokens=4096"))
    assert (found["rows"], found["rejected"]) == (4, {"too_long": 1})
    assert found["tokens"]["measured"] == 2


def test_choices_show_what_their_answers_are(shown):
    rows = [{"question": f"Q{n}", "choices": ["w", "x", "y", "z"], "answer": n, "solution": "s"} for n in (1, 2, 4)]
    fields = "data.fields={problem: question, choices: choices, answer: answer}"
    found = json.loads(shown(rows, "json=true", "domain=choice", fields))
    assert [each["answer"] for each in found["first"]] == ["A", "B", "D"]
    assert found["first"][0]["problem"] == "Q1\n\nA. w\nB. x\nC. y\nD. z"
    assert found["first"][0]["check"] == {"choices": ["w", "x", "y", "z"]}
    assert "numbers count from 1" in shown(rows, "domain=choice", fields)


def test_held_out_problems_are_shown_where_no_others_are_named(tmp_path, capfdbinary):
    (tmp_path / "test.jsonl").write_text('{"problem": "What is 1+1?", "answer": "2"}\n')
    _inspect(None, [f"evaluate.path={tmp_path}", "evaluate.fields.answer=answer", "json=true", "model.path=./none"])
    found = json.loads(capfdbinary.readouterr().out)
    assert found["first"] == [{"problem": "What is 1+1?", "solution": "", "answer": "2", "check": {}}]


def test_a_file_without_a_usable_row_is_an_error_behind_its_figures(shown, capfdbinary):
    with pytest.raises(DataError, match=r"not one row is a usable problem \(1 missing_field\)"):
        shown([{"problem": "What is 1+1?", "answer": "2"}], "data.fields.answer=answer", "json=true")
    assert json.loads(capfdbinary.readouterr().out)["rejected"] == {"missing_field": 1}


def test_a_tokenizer_that_is_not_there_does_not_hide_the_rows(shown, monkeypatch):
    def missing(model):
        raise ConfigError("model.path=x does not exist")

    monkeypatch.setattr(inspection, "resolve_model", missing)
    assert json.loads(shown(ROWS, "json=true", "data.format=auto"))["tokens"] is None
    assert "not measured: model.path=x does not exist" in shown(ROWS, "data.format=auto")


def test_nothing_to_inspect_is_said(shown):
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        _inspect(None, ["json=true"])
