"""The process that runs the tests: what the solution defines is here by proxy, and its values arrive as data.

Tests are Python: statements at the top, functions `test_...`, and classes of unittest; `import solution` works too.
"""

import builtins
import json
import os
import sys
import traceback
import types
import unittest
from typing import Any

from offsft.verify.sandbox.wire import Gone, contain, decoded, encoded, receive, send


class SolutionError(Exception):
    """Stands for an exception of the solution that is not built in, or that would end the tests."""


class Remote:
    """An object of the solution. `==` is identity: what it says of itself is no proof."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: "Link", number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._link.call(self._number, None, arguments, named)

    def __getattr__(self, name: str) -> Any:
        return self._link.get(self._number, name)

    def __len__(self) -> int:
        try:
            return self._link.call(self._number, "__len__", (), {})
        except AttributeError as error:
            raise TypeError(str(error)) from None  # what list() and tuple() expect of an object without a length

    def __iter__(self) -> Any:
        return self._link.call(self._number, "__iter__", (), {})

    def __next__(self) -> Any:
        return self._link.call(self._number, "__next__", (), {})

    def __getitem__(self, key: Any) -> Any:
        return self._link.call(self._number, "__getitem__", (key,), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.call(self._number, "__setitem__", (key, value), {})

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self._link.call(self._number, "__str__", (), {})

    def __repr__(self) -> str:
        return self._link.call(self._number, "__repr__", (), {})


class Link:
    """The channel to the solution's process."""

    def __init__(self, requests: Any, replies: Any, value_bytes: int) -> None:
        self._requests, self._replies, self._value_bytes = requests, replies, value_bytes
        self._own: dict[str, type[Exception]] = {}

    def ready(self) -> None:
        receive(self._replies, self._value_bytes)

    def load(self, code: str) -> dict[str, Any]:
        """What the solution defines, by name."""
        names = {}
        for name, what in self._asked({"do": "load", "code": code})["names"].items():
            if "raises" in what:
                self._own[name] = names[name] = type(str(name), (_exception(what["raises"]),), {})
            else:
                names[name] = self._decoded(what["value"])
        return names

    def get(self, number: int, name: str) -> Any:
        return self._decoded(self._asked({"do": "get", "object": number, "name": name})["value"])

    def call(self, number: int, name: str | None, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        message = {"do": "call", "object": number, "name": name}
        message["arguments"] = [encoded(each, _number) for each in arguments]
        message["named"] = {key: encoded(each, _number) for key, each in named.items()}
        reply = self._asked(message)
        for argument, changed in zip(arguments, reply["changed"], strict=True):
            if changed is not None:
                _replace(argument, self._decoded(changed))
        return self._decoded(reply["value"])

    def _decoded(self, value: Any) -> Any:
        return decoded(value, lambda number: Remote(self, number))

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            send(self._requests, message)
        except BrokenPipeError:
            raise Gone("the solution ended its process") from None
        reply = receive(self._replies, self._value_bytes)
        if "raised" in reply:
            kind = self._own.get(str(reply["raised"])) or _exception(reply["is"])
            raise kind(reply["text"])
        return reply


def _exception(name: Any) -> type[Exception]:
    found = getattr(builtins, str(name), None)
    return found if isinstance(found, type) and issubclass(found, Exception) else SolutionError


def _number(value: Any) -> int:
    if not isinstance(value, Remote):
        raise TypeError(f"a {type(value).__name__} cannot be handed to a solution: its process takes data only")
    return value._number


def _replace(argument: Any, changed: Any) -> None:
    if type(changed) is type(argument) and changed != argument:
        argument.clear()
        argument.extend(changed) if isinstance(argument, list) else argument.update(changed)


def run_tests(code: str, tests: str, link: Link) -> dict[str, Any]:
    """`passed`, and `why` in one line where a test failed; `broken` where the tests themselves are."""
    try:
        compiled = compile(tests, "tests.py", "exec")
    except SyntaxError as error:
        return {"passed": False, "broken": True, "why": f"the tests are no Python: {error}"}
    step = "the solution itself"
    try:
        module = types.ModuleType("solution")
        module.__dict__.update(link.load(code))
        sys.modules["solution"] = module
        # A solution may define an `all` or `sorted` of its own, which must not judge: it is `solution.all` only.
        names = {key: value for key, value in vars(module).items() if not hasattr(builtins, key) and key[:2] != "__"}
        module.__dict__["__all__"] = list(names)
        space: dict[str, Any] = {"__name__": "tests", **names}
        step = "a statement"
        exec(compiled, space)
        for name, test in list(space.items()):  # a test may define globals
            if name.startswith("test") and isinstance(test, types.FunctionType):
                step = name
                test()
        cases = [each for each in space.values() if isinstance(each, type) and issubclass(each, unittest.TestCase)]
        for case in cases:
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
            for failed, text in result.failures + result.errors:
                return {"passed": False, "why": f"{failed.id()}: {text.strip().splitlines()[-1]}"}
    except BaseException as error:  # an assertion, whatever the solution raised, or its end: the test has failed
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
        source = tests.splitlines()[lines[-1] - 1].strip() if lines and lines[-1] else ""
        where = f"line {lines[-1]}, {source[:100]!r}" if lines else step
        return {"passed": False, "why": f"{where}: {type(error).__name__}: {error}"}
    return {"passed": True, "why": "all tests passed"}


def main() -> None:
    limits = json.loads(sys.argv[1])
    requests, replies = os.fdopen(int(sys.argv[2]), "wb"), os.fdopen(int(sys.argv[3]), "rb")
    jobs, verdicts = contain(limits)
    link = Link(requests, replies, limits["value_bytes"])
    job = receive(jobs, limits["value_bytes"] * 4)
    link.ready()
    send(verdicts, {"ready": True})
    result = run_tests(job["code"], job["tests"], link)
    result["why"] = " ".join(str(result["why"]).split())[:300]
    send(verdicts, result)


if __name__ == "__main__":
    main()
