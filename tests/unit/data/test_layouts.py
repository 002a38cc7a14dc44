"""Rows of public layouts become problems: chats, instructions, nested fields, several fields, and `auto`."""

import json

import pytest

from offsft.config import DataConfig, Fields
from offsft.data.files import existing_files, read_rows
from offsft.data.formats import parse
from offsft.data.reader import find_reader
from offsft.data.rows import RawRow, Reason, Rejected
from offsft.errors import ConfigError
from offsft.records import Problem


def row(raw, form="own", domain="math", held_out=False, **fields):
    got = parse(RawRow("f.jsonl", 1, json.dumps(raw).encode()), form, Fields(**fields), domain, held_out=held_out)
    assert isinstance(got, Problem), got
    return got


def rejection(raw, form="own", domain="math", **fields):
    got = parse(RawRow("f.jsonl", 1, json.dumps(raw).encode()), form, Fields(**fields), domain)
    assert isinstance(got, Rejected), got
    return got


def turns(*said, role="role", content="content"):
    return [{role: who, content: what} for who, what in said]


ASKED = {"role": "user", "content": "What is 1+1?"}


@pytest.mark.parametrize("form", ["numina", "chat"])
@pytest.mark.parametrize(
    "raw",
    [
        {"messages": turns(("system", "Be brief."), ("user", "What is 1+1?"), ("assistant", "\\boxed{2}"))},
        {"conversations": turns(("human", "What is 1+1?"), ("gpt", "\\boxed{2}"), role="from", content="value")},
        {"conversations": turns(("system", "S"), ("human", "What is 1+1?"), ("gpt", "\\boxed{2}"), role="from", content="value"), "system": "x"},
        {"conversations": turns(("gpt", "Hello!"), ("human", "What is 1+1?"), ("gpt", "\\boxed{2}"), role="from", content="value")},
        {"messages": turns(("User", "What is 1+1?"), ("Assistant", "\\boxed{2}"), ("User", "And 2+2?"), ("Assistant", "4"))},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "1+1?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "\\boxed{2}"}]}]},
        {"conversation": turns(("human", "What is 1+1?"), ("model", "\\boxed{2}"))},
        {"messages": json.dumps(turns(("user", "What is 1+1?"), ("assistant", "\\boxed{2}"))), "source": "x"},
    ],
)  # fmt: skip
def test_a_chat_gives_its_first_question_and_answer(raw, form):
    got = row(raw, form)
    assert (got.problem, got.answer, got.solution) == ("What is 1+1?", "2", "\\boxed{2}")


@pytest.mark.parametrize(
    ("raw", "reason", "told"),
    [
        ({"messages": turns(("user", "Q"))}, Reason.MISSING_FIELD, "none of the assistant"),
        ({"messages": turns(("tool", "Q"))}, Reason.MISSING_FIELD, "holds turns of tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, Reason.WRONG_TYPE, "parts of the type image"),
        ({"messages": []}, Reason.WRONG_TYPE, "is not a list of objects that say who speaks"),
        ({"text": "Q"}, Reason.MISSING_FIELD, "'messages' is missing; the row has: text"),
    ],
)  # fmt: skip
def test_a_chat_without_question_or_answer_says_so(raw, reason, told):
    got = rejection(raw, "chat")
    assert got.reason is reason
    assert told in got.detail


def test_prompt_and_completion_may_be_text_or_turns():
    answer = {"role": "assistant", "content": "\\boxed{2}"}
    for prompt, completion in (
        ([ASKED], [answer]),
        ("What is 1+1?", "\\boxed{2}"),
        ([{"role": "system", "content": "S"}, ASKED], [answer]),
        ([ASKED], "\\boxed{2}"),
    ):
        raw = {"prompt": prompt, "completion": completion}
        for got in (row(raw, problem="prompt", solution="completion"), row(raw, "completion")):
            assert (got.problem, got.answer) == ("What is 1+1?", "2")


def test_nested_fields_are_named_by_path():
    raw = {
        "prompt": "What is 1+1?",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"answer": "1+1=2"},
    }
    got = row(raw, problem="prompt", solution="extra_info.answer", answer="reward_model.ground_truth")
    assert (got.problem, got.answer) == ("What is 1+1?", "2")
    raw = {
        "q": {"text": ["What?", "Which?"]},
        "solutions": [{"text": "so \\boxed{1}"}, {"text": "or \\boxed{2}"}],
        "a.b": 2,
    }
    got = row(raw, problem="q.text[1]", solution="solutions[-1].text", answer="a.b")
    assert (got.problem, got.solution, got.answer) == ("Which?", "or \\boxed{2}", "2")
    assert row({"q": "Q", "meta": '{"answer": 7}'}, problem="q", answer="meta.answer", held_out=True).answer == "7"
    got = rejection(raw, problem="q.title", solution="solutions[0].text")
    assert (got.reason, "'q.title' is missing" in got.detail) == (Reason.MISSING_FIELD, True)
    assert (
        rejection(raw, problem="q.text", solution="q.text").detail
        == "the field 'q.text' holds 2 texts; name one of them: q.text[0]"
    )


def test_verl_rows_are_read_with_or_without_their_extra_fields():
    chat = [{"role": "user", "content": "What is 1+1? Let's think step by step."}]
    raw = {"data_source": "openai/gsm8k", "prompt": chat, "reward_model": {"style": "rule", "ground_truth": "2"}}
    assert row(raw, "verl", held_out=True).problem == "What is 1+1? Let's think step by step."
    assert rejection(raw, "verl").reason is Reason.MISSING_FIELD
    extra = {"question": "What is 1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2", "split": "train"}
    got = row(raw | {"extra_info": extra}, "verl")
    assert (got.problem, got.solution, got.answer) == ("What is 1+1?", "1+1 = 2\nThe answer is \\boxed{2}.", "2")
    dapo = raw | {"reward_model": {"ground_truth": '["34"]'}}
    assert row(dapo, "verl", held_out=True).answer == "34"


def test_a_problem_in_several_fields_is_put_together():
    raw = {"Body": "Tom has 3 apples.", "Question": "How many?", "Answer": 3.0, "Equation": "3"}
    for problem in ("{Body} {Question}", ["Body", "Question"]):
        got = row(raw, problem=problem, answer="Answer", held_out=True)
        assert " ".join(got.problem.split()) == "Tom has 3 apples. How many?"
    assert row(raw, "svamp").problem == "Tom has 3 apples. How many?"
    assert rejection(raw, problem="{Body} {Questions}").detail.startswith("the field 'Questions' is missing")
    assert rejection({"a": " ", "b": None, "solution": "s"}, problem="{a} {b}").reason is Reason.EMPTY_FIELD


@pytest.mark.parametrize("form", ["own", "alpaca"])
def test_alpacas_input_belongs_to_the_problem(form):
    fields = {"problem": "instruction", "solution": "output"} if form == "own" else {}
    raw = {"instruction": "Add the numbers.", "input": "3 and 4", "output": "\\boxed{7}"}
    assert row(raw, form, **fields).problem == "Add the numbers.\n\n3 and 4"
    for nothing in ("", None, "  "):
        assert row(raw | {"input": nothing}, form, **fields).problem == "Add the numbers."


def test_held_out_rows_need_no_solution():
    raw = {"problem": "What is 1+1?", "answer": "2"}
    got = row(raw, answer="answer", held_out=True)
    assert (got.problem, got.solution, got.answer) == ("What is 1+1?", "", "2")
    assert row(raw | {"solution": None}, answer="answer", held_out=True).answer == "2"
    assert rejection(raw, answer="answer").detail.startswith("the field 'solution' is missing")
    got = parse(RawRow("f", 1, json.dumps({"problem": "Q"}).encode()), "own", Fields(), held_out=True)
    assert isinstance(got, Rejected)
    assert got.reason is Reason.NO_ANSWER
    asked = {"question": "Q", "options": ["x", "y"], "answer": "B"}
    assert row(asked, "mmlu_pro", "choice", held_out=True).answer == "B"


def test_tests_that_touch_nothing_of_the_solution_are_refused():
    raw = {"problem": "P", "solution": "def f(): pass", "tests": "assert 1 == 1"}
    got = rejection(raw, domain="code")
    assert (got.reason, got.detail) == (Reason.UNTESTABLE, "the tests use nothing that a solution defines")
    assert "no test would run" in rejection(raw | {"tests": "f()"}, domain="code").detail
    assert "no Python" in rejection(raw | {"tests": "assert f( =="}, domain="code").detail
    assert rejection({"problem": "P", "solution": "S"}, domain="code").reason is Reason.MISSING_FIELD


HUMANEVAL = {
    "task_id": "t/0",
    "prompt": 'def add(a, b):\n    """Sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {"task_id": 1, "text": "Write add(a, b).", "code": "def add(a, b):\n    return a + b", "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"], "test_setup_code": "", "challenge_test_list": []}  # fmt: skip
PRIVATE = "eJxrYJmayMgABhFmQGQFAA=="
LIVE = {"question_title": "T", "question_content": "Add.", "starter_code": "", "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]), "private_test_cases": PRIVATE, "metadata": "{}"}  # fmt: skip


def test_code_is_read_as_it_is_published():
    got = row(HUMANEVAL, "humaneval", "code")
    assert got.problem.startswith("Complete this function.\n\n```python\ndef add")
    assert got.solution == '```python\ndef add(a, b):\n    """Sum."""\n    return a + b\n\n```'
    assert got.check == {name: HUMANEVAL[name] for name in ("test", "entry_point", "prompt")}
    got = row(MBPP, "mbpp", "code")
    assert got.problem.endswith("```python\nassert add(1, 2) == 3\nassert add(2, 2) == 4\n```")
    assert got.check == {"test_list": MBPP["test_list"]}
    assert row(LIVE, "livecodebench", "code", held_out=True).check == {"public_test_cases": LIVE["public_test_cases"]}
    functional = LIVE | {"public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]), "metadata": '{"func_name": "add"}'}  # fmt: skip
    assert row(functional, "livecodebench", "code", held_out=True).check["func_name"] == "add"
    apps = {"question": "Add.", "solutions": json.dumps(["a", "b"]), "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]})}  # fmt: skip
    assert row(apps, "apps", "code").solution == "```python\na\n```"
    own = row({"q": "P", "s": "S", "io": [{"input": "1", "output": "2"}]}, domain="code", problem="q", solution="s", tests="io")  # fmt: skip
    assert own.check == {"tests": [{"input": "1", "output": "2"}]}


def test_a_solution_may_define_the_name_of_a_built_in_function():
    raw = {"problem": "P", "solution": "def sum(a, b): return a", "tests": "assert sum(1, 2) == 1"}
    assert row(raw, domain="code").check == {"tests": "assert sum(1, 2) == 1"}
    assert rejection(raw | {"solution": "def add(a, b): return a"}, domain="code").reason is Reason.UNTESTABLE


def reader(tmp_path, rows, domain="math", held_out=False, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    data = DataConfig.model_validate({"path": str(path), "format": "auto", **settings})
    files = existing_files(data, "data.path")
    found = find_reader(data, files, domain, held_out=held_out, setting="data.path")
    return found, [found.parse(RawRow(file, line, raw)) for file in files for line, raw in read_rows(file)]


CHAT = {"messages": turns(("user", "Q"), ("assistant", "\\boxed{2}"))}


@pytest.mark.parametrize(
    ("form", "domain", "raw"),
    [
        ("gsm8k", "math", {"question": "Q", "answer": "1+1=2\n#### 2"}),
        ("math", "math", {"problem": "Q", "solution": "\\boxed{2}", "level": 1}),
        ("numina", "math", {"problem": "Q", "solution": "s", "answer": "2", "question_type": "MCQ"}),
        ("chat", "math", CHAT),
        ("chat", "free", CHAT),
        ("chat conversations", "math", {"conversations": turns(("human", "Q"), ("gpt", "\\boxed{2}"), role="from", content="value")}),
        ("alpaca", "math", {"instruction": "Q", "input": "", "output": "\\boxed{2}"}),
        ("completion", "math", {"prompt": "Q", "completion": "\\boxed{2}"}),
        ("verl", "math", {"prompt": [ASKED], "reward_model": {"ground_truth": "2"}, "extra_info": {"answer": "s"}}),
        ("svamp", "math", {"Body": "B", "Question": "Q", "Answer": 2.0, "Equation": "1+1"}),
        ("mmlu", "choice", {"question": "Q", "choices": ["1", "2"], "answer": 1, "solution": "s"}),
        ("arc", "choice", {"question": "Q", "choices": {"text": ["1", "2"], "label": ["A", "B"]}, "answerKey": "B"}),
        ("aqua", "choice", {"question": "Q", "options": ["A)1", "B)2"], "correct": "B", "rationale": "s"}),
        ("mmlu_pro", "choice", {"question": "Q", "options": ["1", "2"], "answer": "B", "answer_index": 1, "cot_content": "s"}),
        ("humaneval", "code", HUMANEVAL),
        ("mbpp", "code", MBPP),
        ("livecodebench", "code", LIVE),
        ("own", "math", {"query": "Q", "response": "The answer is: 2", "type": "x"}),
        ("own", "math", {"question": "Q", "generated_solution": "s", "expected_answer": "2"}),
    ],
)  # fmt: skip
def test_auto_says_what_it_took_a_file_for(tmp_path, form, domain, raw):
    found, problems = reader(tmp_path, [raw, raw], domain, held_out=True)
    assert found.form == form
    assert "have" in found.why or "usual names" in found.why
    assert all(isinstance(each, Problem) and (each.answer in ("2", "B") or domain == "code") for each in problems)


def test_fields_that_are_set_come_before_recognised_ones(tmp_path):
    raw = {"problem": "Q", "solution": "\\boxed{2}", "solution2": "\\boxed{3}"}
    found, (problem,) = reader(tmp_path, [raw], fields={"solution": "solution2"})
    assert isinstance(problem, Problem)
    assert problem.answer == "3"
    assert "solution as set" in found.why


def test_rows_without_a_solution_do_not_hide_the_layout_of_the_others(tmp_path):
    whole = {"question": "Q", "output": "\\boxed{2}", "score": 1}
    found, rows = reader(tmp_path, [whole, whole | {"output": None, "answer": 3}])
    assert (found.form, found.fields.answer) == ("own", None)
    assert [isinstance(each, Problem) for each in rows] == [True, False]
    assert rows[1].reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("raw", "domain", "told"),
    [
        ({"a": 1, "b": 2}, "math", r"no layout of domain=math is known with these fields: a, b; .*data\.fields\.problem"),
        ({"question": "Q", "choices": ["1", "2"], "answer": 1}, "math", r"look like mmlu, and domain=math; set domain=choice"),
        (HUMANEVAL, "math", "set domain=code"),
    ],
)  # fmt: skip
def test_auto_refuses_what_it_does_not_know(tmp_path, raw, domain, told):
    with pytest.raises(ConfigError, match=told):
        reader(tmp_path, [raw], domain)


def test_a_format_of_another_domain_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.format=mmlu has problems of another kind; set domain=choice"):
        reader(tmp_path, [{"question": "Q"}], format="mmlu")
