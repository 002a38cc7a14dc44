"""Reads the tests of a coding problem, in their published layouts, into one form that the sandbox runs."""

import ast
import builtins
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_TESTS = ("tests", "test", "test_list")
_CASES = ("cases", "test_cases", "input_output", "public_test_cases", "private_test_cases")
_ENTRY_POINTS = ("entry_point", "fn_name", "func_name")
_SETUPS = ("setup", "test_setup_code", "setup_code", "test_imports")
_DEFINED = re.compile(r"^(?:async )?(?:def|class) (\w+)", re.MULTILINE)
TEST_FIELDS = (*_TESTS, *_CASES)
"""Names under which data sets keep tests and cases."""
SIDE_FIELDS = (*_ENTRY_POINTS, *_SETUPS)
"""Names of what belongs to the tests: the function that they call, and code that runs first."""


@dataclass(frozen=True, slots=True)
class CodeTests:
    """Tests as Python, the function that `check` is given, and input/output cases."""

    python: str
    entry_point: str
    cases: list[dict[str, Any]]
    prompt: str = ""
    """Code that a response may continue, such as HumanEval's signature."""

    @property
    def job(self) -> dict[str, Any]:
        """The job description sent to the sandbox."""
        return {"tests": self.python, "entry_point": self.entry_point, "cases": self.cases}

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the solution has to define: the entry point, and all that the tests use but do not define."""
        named = [self.entry_point, *(case["name"] for case in self.cases if case["kind"] == "call")]
        return tuple(dict.fromkeys([*filter(None, named), *_used_names(self.python)]))


def read_tests(check: Mapping[str, Any]) -> CodeTests:
    """Read the tests in `check`, under offsft's names or those of the data sets.

    `tests` is Python (or a list of statements), `entry_point` the function that HumanEval's `check(candidate)` is
    given, and `setup` the code that runs first (MBPP). `cases` is a list of `{"input", "output"}` (LiveCodeBench) or
    `{"inputs", "outputs"}` (APPS). Any of these may be given as JSON text.

    Raises:
        ValueError: there are none, or they are not in these forms; the message is one line.
    """
    entry_point = next((str(check[name]) for name in _ENTRY_POINTS if check.get(name)), "")
    python, cases = [], []
    for name in _TESTS:
        value = _unpacked(check.get(name))
        if (isinstance(value, list) and value and all(isinstance(each, dict) for each in value)) or isinstance(
            value, dict
        ):
            cases += _cases(value, entry_point, name)
        elif value:
            python.append(_text(value, name))
    for name in _CASES:
        if check.get(name):
            cases += _cases(_unpacked(check[name]), entry_point, name)
    if not any(text.strip() for text in python) and not cases:
        raise ValueError("the problem has no check.tests")
    setup = [_text(_unpacked(check[name]), name) for name in _SETUPS if check.get(name)] if python else []
    prompt = check.get("prompt")
    return CodeTests("\n".join([*setup, *python]), entry_point, cases, prompt if isinstance(prompt, str) else "")


def why_untestable(check: Mapping[str, Any], solution: str = "") -> str | None:
    """Why no solution can pass the tests in `check`, in one line; None if one can.

    The tests are read, not run: they are in no known form or not valid Python, contain no assertion, test or case, or
    use no name that a solution could define. A known `solution` may define a built-in function's name, as MBPP's
    126th does: `sum`.
    """
    try:
        tests = read_tests(check)
        tree = ast.parse(tests.python)
    except ValueError as error:
        return str(error)
    except (SyntaxError, RecursionError, MemoryError) as error:
        return f"the tests are no Python: {error}"
    if tests.cases:
        return None
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    checks = "check" in functions and bool(tests.entry_point)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.FunctionDef) and node.name not in called and not node.name.startswith("test"))
    ]
    if not checks and not any(_may_assert(node) for top in body for node in ast.walk(top)):
        return "no test would run: there is no assertion, function test_..., method test_..., case, or check() with check.entry_point"
    shadowed = set(_DEFINED.findall(solution)) & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if checks or shadowed or _used_names(tests.python):
        return None
    return "the tests use nothing that a solution defines"


def _may_assert(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("test")
    called = node.func if isinstance(node, ast.Call) else None
    name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
    return isinstance(node, ast.Assert | ast.Raise) or name.startswith("assert")


def _unpacked(value: Any) -> Any:
    """Parse JSON text of a list or an object; return any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            read = json.loads(value)
        except ValueError:
            return value
        return read if isinstance(read, list | dict) else value
    return value


def _text(value: Any, name: str) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"check.{name} is neither text, a list of statements nor a list of cases")
    return value


def _cases(value: Any, entry_point: str, name: str) -> Iterator[dict[str, Any]]:
    """Each case in the sandbox's form: a function's if there is an entry point, else a program's."""
    if isinstance(value, dict):
        entry_point = next((str(value[key]) for key in _ENTRY_POINTS if value.get(key)), entry_point)
        inputs, outputs = value.get("inputs"), value.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError(f"check.{name} holds no lists `inputs` and `outputs` of one length")
        value = [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
        whole = True
    else:
        whole = False
    if not isinstance(value, list) or not all(
        isinstance(each, dict) and {"input", "output"} <= each.keys() for each in value
    ):
        raise ValueError(f"check.{name} is not a list of cases with `input` and `output`")
    for each in value:
        is_call = each.get("testtype", "functional" if entry_point else "stdin") == "functional"
        if is_call and not entry_point:
            raise ValueError(f"check.{name} calls a function, and check.entry_point does not name it")
        yield _call(each, entry_point, name, whole=whole) if is_call else _program(each)


def _program(case: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> str:
        return "\n".join(map(str, value)) if isinstance(value, list) else str(value)

    return {"kind": "program", "stdin": text(case["input"]), "expected": text(case["output"])}


def _call(case: dict[str, Any], entry_point: str, name: str, *, whole: bool) -> dict[str, Any]:
    """A function's case in the sandbox's form.

    LiveCodeBench writes one argument per line, as JSON; APPS lists the arguments, and often wraps the result in a list.
    """
    given, wanted = case["input"], case["output"]
    try:
        arguments = (
            [json.loads(line) for line in given.splitlines() if line.strip()] if isinstance(given, str) else given
        )
        expected = json.loads(wanted) if isinstance(wanted, str) and not whole else wanted
    except ValueError as error:
        raise ValueError(f"check.{name}: an argument or a result is not valid JSON: {error}") from None
    if not isinstance(arguments, list):
        arguments = [arguments]
    if whole and isinstance(expected, list) and len(expected) == 1:
        expected = expected[0]
    return {"kind": "call", "name": entry_point, "arguments": arguments, "expected": expected}


def _used_names(python: str) -> list[str]:
    """Names that the tests use but do not define, in order of use; empty if they are not valid Python."""
    try:
        tree = ast.parse(python)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    defined, used = set(dir(builtins)), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                used.append(node.id)
            else:
                defined.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "solution"):
            defined |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used += [alias.name for alias in node.names]
    return [name for name in dict.fromkeys(used) if name not in defined]
