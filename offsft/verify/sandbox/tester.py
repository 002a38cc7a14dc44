"""The process that runs the tests: the solution's definitions are proxies here, and its values arrive as data.

Tests are Python: top-level statements, functions `test_...`, unittest classes, a `check(candidate)` that is called with
the entry point; or input/output cases. `import solution` works too. The tests that ran are counted: a test that did not
run, or that requested nothing of the solution, has not passed.
"""

import ast
import builtins
import json
import os
import sys
import traceback
import types
import unittest
from typing import Any

from offsft.verify.sandbox.cases import run_cases
from offsft.verify.sandbox.remote import Link, Remote
from offsft.verify.sandbox.wire import contain, receive, send

_COUNT = "__offsft_a_test_ran__"


class _Counted(ast.NodeTransformer):
    """Counts each assertion as it runs: `assert`, a call of `assert...`, and an `if` that raises."""

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        if not isinstance(node, ast.stmt) or not _is_assertion(node):
            return node
        call = ast.Expr(ast.Call(ast.Name(_COUNT, ast.Load()), [], []))
        return [ast.fix_missing_locations(ast.copy_location(call, node)), node]


def _is_assertion(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name.startswith("assert")
    raises = isinstance(node, ast.If) and any(isinstance(each, ast.Raise) for each in node.body + node.orelse)
    return isinstance(node, ast.Assert) or raises


class _Run:
    """One run of the tests, and its progress."""

    def __init__(self, job: dict[str, Any], link: Link) -> None:
        self._job, self._link = job, link
        self.step = "the solution itself"
        self.ran = 0
        self._touches_a_value = False
        self._defined: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Run the tests; returns `passed`, a one-line `why`, and `broken` if the tests themselves are."""
        tests, job = self._job["tests"], self._job
        tree = ast.parse(tests, "tests.py")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names = self._load(used) if tests.strip() or any(case["kind"] == "call" for case in job["cases"]) else {}
        failed = self._run_python(tree, names) or run_cases(
            job["cases"], self._defined, job["code"], self._link, self._count
        )
        if failed is not None:
            return {"passed": False, "why": failed}
        if not self.ran:
            return {"passed": False, "broken": True, "why": self._nothing_ran(tree)}
        if not self._link.asked and not self._touches_a_value:
            return {"passed": False, "broken": True, "why": "the tests use nothing that the solution defines"}
        return {"passed": True, "why": "all tests passed"}

    def _count(self) -> None:
        self.ran += 1

    def _load(self, used: set[str]) -> dict[str, Any]:
        """Load the solution and return the definitions visible to the tests, which use the names `used`."""
        module = types.ModuleType("solution")
        module.__dict__.update(self._link.load(self._job["code"]))
        sys.modules["solution"] = module
        # A solution may define its own `all` or `sorted`, which must not judge: it is visible as `solution.all` only.
        defined = self._defined = {key: value for key, value in vars(module).items() if key[:2] != "__"}
        names = {key: value for key, value in defined.items() if not hasattr(builtins, key)}
        if used.isdisjoint(names):
            # But tests that use nothing else test that very function: `assert sum(10, 15) == 6`.
            names |= {key: value for key, value in defined.items() if key in used}
        module.__dict__["__all__"] = list(names)
        return names

    def _run_python(self, tree: ast.Module, names: dict[str, Any]) -> str | None:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        self._touches_a_value = not used.isdisjoint(
            name for name, value in names.items() if not isinstance(value, Remote)
        )
        space: dict[str, Any] = {"__name__": "tests", **names, _COUNT: self._count}
        self.step = "a statement"
        exec(compile(_Counted().visit(tree), "tests.py", "exec"), space)
        for name, test in list(space.items()):  # a test may define globals
            if name.startswith("test") and isinstance(test, types.FunctionType) and name not in names:
                self.step = name
                self.ran += 1
                test()
        self._check(space, names)
        return self._run_unittest(space)

    def _check(self, space: dict[str, Any], names: dict[str, Any]) -> None:
        """Run HumanEval's tests: call `check` with the entry point."""
        entry, check = self._job["entry_point"], space.get("check")
        if entry and isinstance(check, types.FunctionType):
            self.step = "check"
            if entry not in names and not hasattr(sys.modules["solution"], entry):
                raise NameError(f"the solution defines no {entry}")
            self.ran += 1
            check(names.get(entry, getattr(sys.modules["solution"], entry)))

    def _run_unittest(self, space: dict[str, Any]) -> str | None:
        for case in [each for each in space.values() if isinstance(each, type) and issubclass(each, unittest.TestCase)]:
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
            self.ran += result.testsRun - len(result.skipped)
            for test, text in result.failures + result.errors:
                return f"{test.id()}: {text.strip().splitlines()[-1]}"
        return None

    def _nothing_ran(self, tree: ast.Module) -> str:
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "check" in defined:
            return "no test ran: the tests define check() and call it nowhere; check.entry_point names the function to check"
        return "no test ran: there is no assertion, no function test_..., no method test_... and no case"


def run_tests(job: dict[str, Any], link: Link) -> dict[str, Any]:
    """Run a job's tests; returns `passed`, a one-line `why`, and `broken` if the tests themselves are."""
    tests, run = job["tests"], _Run(job, link)
    try:
        return run.run()
    except SyntaxError as error:
        if not getattr(error, "of_solution", False):
            return {"passed": False, "broken": True, "why": f"the tests are no Python: {error}"}
        return {"passed": False, "why": f"{run.step}: {type(error).__name__}: {error}"}
    except BaseException as error:  # an assertion, any exception of the solution, or its end: the test has failed
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
        source = tests.splitlines()[lines[-1] - 1].strip() if lines and lines[-1] else ""
        where = f"line {lines[-1]}, {source[:100]!r}" if lines else run.step
        why = f"{where}: {type(error).__name__}: {error}"
        lacking = (
            isinstance(error, ImportError) and not getattr(error, "of_solution", False) and error.name != "solution"
        )
        if lacking and run.step != "the solution itself":
            return {
                "passed": False,
                "broken": True,
                "why": f"{why}; verify.code.packages lets packages into the sandbox",
            }
        return {"passed": False, "why": why}


def main() -> None:
    limits = json.loads(sys.argv[1])
    requests, replies = os.fdopen(int(sys.argv[2]), "wb"), os.fdopen(int(sys.argv[3]), "rb")
    jobs, verdicts = contain(limits)
    link = Link(requests, replies, limits["value_bytes"])
    job = receive(jobs, limits["value_bytes"] * 4)
    link.ready()
    send(verdicts, {"ready": True})
    result = run_tests(job, link)
    result["why"] = " ".join(str(result["why"]).split())[:300]
    send(verdicts, result)


if __name__ == "__main__":
    main()
