"""Layouts of public data sets: which fields they have, and how problem, solution and answer are read from them."""

import re
from dataclasses import dataclass
from typing import Any

from offsft.config import Domain, Fields
from offsft.data.references import check_validity
from offsft.data.rows import Reason, Unusable
from offsft.data.values import chat_in, find, get, has, text
from offsft.verify.code_tests import SIDE_FIELDS, TEST_FIELDS

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a row says: texts, and the answer as its field has it; None where the row has no such field."""

    problem: str
    solution: str | None
    answer: Any


@dataclass(frozen=True, slots=True)
class Layout:
    """A published layout: the fields that tell it, those that are read, and the domain of its problems."""

    needs: tuple[str, ...]
    fields: Fields
    domain: Domain = "math"


CONTINUE = "Complete this function.\n\n```python\n{prompt}\n```"
PASS = "\n\nYour code should pass these tests:\n\n```python\n{test_list}\n```"
"""What MBPP's problems leave open: the name of the function, and what it takes."""
_GPQA = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
LAYOUTS: dict[str, Layout] = {
    # The first one that fits is taken: what needs more comes first.
    "verl": Layout(
        ("prompt", "reward_model.ground_truth"),
        Fields(problem="prompt", solution="extra_info.answer", answer="reward_model.ground_truth"),
    ),
    "gsm8k": Layout(("question", "answer"), Fields(problem="question", solution="answer", answer="answer")),
    "numina": Layout(("problem", "solution", "answer", "question_type"), Fields(answer="answer")),
    "math": Layout(("problem", "solution"), Fields(answer="answer")),
    **{
        f"chat {name}".removesuffix(" messages"): Layout((name,), Fields(problem=name, solution=name))
        for name in _CHATS
    },
    "svamp": Layout(
        ("Body", "Question", "Answer"), Fields(problem="{Body} {Question}", solution="Equation", answer="Answer")
    ),
    "asdiv": Layout(
        ("body", "question", "answer"), Fields(problem="{body} {question}", solution="formula", answer="answer")
    ),
    "alpaca": Layout(("instruction", "output"), Fields(problem="instruction", solution="output")),
    "completion": Layout(("prompt", "completion"), Fields(problem="prompt", solution="completion")),
    "gpqa": Layout(
        ("Question", *_GPQA),
        Fields(problem="Question", solution="Explanation", answer=_GPQA[0], choices=_GPQA, answer_is="text"),
        "choice",
    ),
    "arc": Layout(
        ("question", "choices", "answerKey"),
        Fields(problem="question", answer="answerKey", choices="choices"),
        "choice",
    ),
    "aqua": Layout(
        ("question", "options", "correct"),
        Fields(problem="question", solution="rationale", answer="correct", choices="options"),
        "choice",
    ),
    "mmlu_pro": Layout(
        ("question", "options", "answer"),
        Fields(problem="question", solution="cot_content", answer="answer", choices="options"),
        "choice",
    ),
    "mmlu": Layout(
        ("question", "choices", "answer"), Fields(problem="question", answer="answer", choices="choices"), "choice"
    ),
    "humaneval": Layout(
        ("prompt", "canonical_solution", "test", "entry_point"),
        Fields(problem=CONTINUE, solution="```python\n{prompt}{canonical_solution}\n```"),
        "code",
    ),
    "mbpp": Layout(
        ("text", "code", "test_list"), Fields(problem=f"{{text}}{PASS}", solution="```python\n{code}\n```"), "code"
    ),
    "mbpp_plus": Layout(
        ("prompt", "code", "test_list"), Fields(problem=f"{{prompt}}{PASS}", solution="```python\n{code}\n```"), "code"
    ),
    "kodcode": Layout(
        ("question", "solution", "test"), Fields(problem="question", solution="```python\n{solution}\n```"), "code"
    ),
    "livecodebench": Layout(
        ("question_content", "public_test_cases"), Fields(problem="question_content", solution="solution"), "code"
    ),
    "apps": Layout(
        ("question", "input_output"), Fields(problem="question", solution="```python\n{solutions[0]}\n```"), "code"
    ),
}
_ENOUGH = 0.8
"""Share of rows that must fit a layout: a broken row does not hide it."""
_OWN = Layout((), Fields())
_DOMAINS: dict[Domain, tuple[Domain, ...]] = {"free": ("free", "math")}
"""Domains whose layouts a domain reads: a free answer may be in a row of any kind of question and answer."""


def parts_of(row: dict[str, Any], form: str, fields: Fields) -> Parts:
    """What a row says, read by the layout `form` or by `fields`.

    Raises:
        Unusable: a field of the problem or the answer is missing, empty, or of a wrong type.
    """
    if form == "gsm8k":
        return _gsm8k(row)
    if form == "verl":
        return _verl(row)
    if form == "numina":
        check_validity(row)
    chat = _chat_of(row, form)
    if chat is not None:
        if chat in row and chat_in(row[chat]) is None:
            raise Unusable(Reason.WRONG_TYPE, f"the field {chat!r} is not a list of objects that say who speaks")
        return Parts(text(row, chat), _solution(row, chat), row.get("answer"))
    if form in ("math", "numina"):
        return Parts(text(row, "problem"), _solution(row, "solution"), row.get("answer"))
    return _by_fields(row, LAYOUTS[form].fields if form != "own" else fields, form == "own")


def _chat_of(row: dict[str, Any], form: str) -> str | None:
    """The field of the row's chat, if that is what the layout reads."""
    if form != "chat" and (form != "numina" or "problem" in row):
        return None
    found = next((name for name in _CHATS if name in row), None)
    return found or (_CHATS[0] if form == "chat" else None)


def fields_of(form: str, fields: Fields) -> Fields:
    """The fields that a layout reads; those of the settings for `own`."""
    return LAYOUTS[form].fields if form in LAYOUTS else fields


def _by_fields(row: dict[str, Any], fields: Fields, is_own: bool) -> Parts:
    problem_name = fields.problem
    if problem_name == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        problem_name = ["instruction", "input"]  # Alpaca's second half of a problem
    problem = text(row, problem_name, "data.fields.problem" if is_own else None)
    answer = None
    if fields.answer is not None:
        # An empty field leaves it to the solution; one that is not there is a wrong name.
        answer = get(row, fields.answer, "data.fields.answer") if is_own else find(row, fields.answer, None)
    return Parts(problem, _solution(row, fields.solution), answer)


def _solution(row: dict[str, Any], name: str | list[str]) -> str | None:
    """The text of the solution; None if the row has none, for `why_no_solution` to say why unless it is held out."""
    try:
        return text(row, name, of="assistant")
    except Unusable:
        return None


def why_no_solution(row: dict[str, Any], form: str, fields: Fields) -> Unusable:
    """Why a row has no solution, to refuse it as a training problem."""
    name = _chat_of(row, form) or fields_of(form, fields).solution
    try:
        text(row, name, "data.fields.solution" if form == "own" else None, of="assistant")
    except Unusable as unusable:
        return unusable
    return Unusable(Reason.EMPTY_FIELD, "the solution is empty")


def _gsm8k(row: dict[str, Any]) -> Parts:
    """`answer` is the worked solution with `<<48/2=24>>` marks; its last line is `#### 72`."""
    solution, answer = worked_and_answer(text(row, "answer"))
    if answer is None:
        raise Unusable(Reason.NO_ANSWER, "the last line of the field 'answer' is not `#### ` and the answer")
    return Parts(text(row, "question"), solution, answer)


def worked_and_answer(worked: str) -> tuple[str, str | None]:
    """GSM8K's worked solution without its marks, and the answer of its last line; None if there is none."""
    before, mark, answer = worked.strip().rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer or "\n" in answer:
        return worked, None
    solution = _CALCULATOR.sub("", before).strip()
    return f"{solution}\nThe answer is \\boxed{{{answer}}}." if solution else "", answer


def _verl(row: dict[str, Any]) -> Parts:
    """The plain question and worked answer of `extra_info` where they are, else the prompt."""
    problem = text(row, "extra_info.question" if has(row, "extra_info.question") else "prompt")
    name = next((each for each in ("extra_info.answer", "extra_info.solution", "solution") if has(row, each)), "")
    solution = worked_and_answer(text(row, name))[0] if name else None
    return Parts(problem, solution, find(row, "reward_model.ground_truth", None))


def unread_fields(row: dict[str, Any], form: str, fields: Fields) -> list[str]:
    """The fields of a row from which nothing is read: one of them may be a part of the problem."""
    read = fields_of(form, fields)
    named = [read.problem, read.solution, read.answer, read.choices, read.tests, read.check]
    names = [name for each in named if each for name in (each if isinstance(each, list) else [each])]
    names += [*_CHATS, *TEST_FIELDS, *SIDE_FIELDS] if form in ("numina", "chat") or LAYOUTS.get(form, _OWN).domain == "code" else []  # fmt: skip
    names += ["answer"] if form in ("math", "numina") or form.startswith("chat") else []
    names += ["input"] if read.problem == "instruction" else []
    return [name for name in row if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", each) for each in names)]


def recognise(rows: list[dict[str, Any]], domain: Domain) -> tuple[str, int] | None:
    """The first layout of the domain that nearly all rows fit, and how many do; None if there is none."""
    allowed = _DOMAINS.get(domain, (domain,))
    for form, layout in LAYOUTS.items():
        fitting = sum(_fits(row, form, layout) for row in rows) if layout.domain in allowed else 0
        if fitting and fitting >= _ENOUGH * len(rows):
            return form, fitting
    return None


def _fits(row: dict[str, Any], form: str, layout: Layout) -> bool:
    if not all(has(row, name) for name in layout.needs):
        return False
    if form == "gsm8k":
        return isinstance(row["answer"], str) and worked_and_answer(row["answer"])[1] is not None
    if form.startswith("chat"):
        return chat_in(row[layout.needs[0]]) is not None
    return True
