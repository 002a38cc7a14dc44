"""`python -m jobs.verify`: verdicts on a user's rows, one line per row."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    {"id": "a", "verifier": "math", "response": "So \\boxed{7}.", "answer": "7", "check": {}},
    {"id": "b", "verifier": "choice", "response": "Answer: D", "answer": "C", "check": {"choices": ["1", "2", "3", "4"]}},
    "nonsense",
    {"id": "d", "verifier": "maths", "response": "x"},
    {"id": "e", "respnse": "x"},
    {"response": "The answer is 5.", "answer": 5},
    {"id": "g", "response": "\\boxed{1.01}", "answer": "1", "check": {"relative": 0.05}},
    {"id": "h", "response": ["x"], "answer": "1"},
    [1],
]  # fmt: skip


def verify(*arguments, **more):
    command = [sys.executable, "-m", "jobs.verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, **more)


@pytest.fixture(scope="module")
def text():
    lines = io.StringIO()
    for row in ROWS:
        lines.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    return lines.getvalue()


def test_each_row_has_a_line_in_order_and_a_bad_row_says_why(tmp_path, text):
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    done = verify(f"path={path}")
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[0] == {"id": "a", "outcome": "correct", "extracted": "7", "where": "box", "why": "equal"}
    assert [(row["id"], row["outcome"]) for row in found] == [
        ("a", "correct"), ("b", "wrong"), (None, "error"), ("d", "error"), ("e", "error"), (6, "correct"), ("g", "correct"), ("h", "error"), (None, "error"),
    ]  # fmt: skip
    assert found[2]["why"].startswith("line 3 is not valid JSON")
    assert found[3]["why"].startswith("line 4: verifier='maths' is none of math, numeric")
    assert found[4]["why"] == "line 5 has no field 'response'; it has id, respnse"
    assert found[7]["why"] == "line 8: the field 'response' is not a text"


def test_a_chain_says_what_each_of_its_verifiers_said():
    rows = [
        '{"response": "\\\\boxed{5.1}", "answer": "5"}',
        '{"response": "5", "answer": "5", "verifier": ["numeric", "x"]}',
    ]
    done = verify("path=-", "verify.kind=[math,numeric]", "verify.tolerance.absolute=0.2", input="\n".join(rows) + "\n")
    assert done.returncode == 0, done.stderr
    found, refused = map(json.loads, done.stdout.splitlines())
    assert found["outcome"] == "correct"
    assert [each["verifier"] for each in found["opinions"]] == ["math"]
    assert refused["why"].startswith("line 2: verifier='x' is none of math")


def test_standard_input_and_settings_are_read(text):
    done = verify("path=-", "verify.tolerance.absolute=3", input='{"response": "\\\\boxed{5}", "answer": "7"}\n')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "correct"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "error: path is not set"),
        (["path=/nowhere/cases.jsonl"], 1, "error: path=/nowhere/cases.jsonl cannot be read"),
        (["path=-", "verify.kid=math"], 2, "did you mean verify.kind?"),
        (["path=-", "a.yaml", "b.yaml"], 2, "more than one file: a.yaml, b.yaml"),
        (["path=-"], 1, "holds no row that can be judged"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(arguments, status, said):
    done = verify(*arguments, input="nonsense\n")
    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_says_what_a_row_is():
    done = verify("--help")
    assert done.returncode == 0
    assert '"response"' in done.stdout
