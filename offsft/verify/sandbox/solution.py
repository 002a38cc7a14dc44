"""The process that holds a solution: it serves requests and returns values, and never sees the expected results."""

import builtins
import json
import os
import sys
import tempfile
import types
from typing import Any

from offsft.verify.sandbox.values import BASES, MUTABLE, base_value
from offsft.verify.sandbox.wire import contain, decode, encode, receive, send


class _Served:
    def __init__(self, value_bytes: int) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._value_bytes = value_bytes

    def keep(self, value: Any) -> int:
        """The number of an object, always the same one: kept objects stay alive, so their `id` stays valid."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self._numbers[id(value)]

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["do"] == "load":
            module = types.ModuleType("solution")
            sys.modules["solution"] = module
            exec(compile(message["code"], "solution.py", "exec"), module.__dict__)
            return {"names": self._names(module)}
        if message["do"] == "output":
            return {"value": _output(message["code"], message["stdin"], self._value_bytes)}
        target = self.objects[message["object"]]
        if message["do"] == "value":
            return {"value": encode(base_value(target), self.keep), "own": not isinstance(target, BASES)}
        if message["do"] == "isinstance":
            return {"value": isinstance(self.objects[message["of"]], target)}
        if message["name"] is not None:
            target = getattr(target, message["name"])
        if message["do"] == "get":
            return {"value": encode(target, self.keep)}
        arguments = [decode(each, self.objects.__getitem__) for each in message["arguments"]]
        named = {name: decode(each, self.objects.__getitem__) for name, each in message["named"].items()}
        value = target(*arguments, **named)
        # The call's changes to the lists, sets and dictionaries that it was given.
        changed = [encode(each, self.keep) if type(each) in MUTABLE else None for each in arguments]
        return {"value": encode(value, self.keep), "changed": changed}

    def _names(self, module: types.ModuleType) -> dict[str, Any]:
        names = {}
        for name, value in vars(module).items():
            if name.startswith("__") or isinstance(value, types.ModuleType):
                continue
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == "solution":
                names[name] = {"raises": _builtin_name(value)}
            else:
                names[name] = {"value": encode(value, self.keep)}
        return names


def _output(code: str, stdin: str, most_bytes: int) -> str:
    """Run the solution as a program that reads `stdin`, in a separate process, and return its output.

    Raises:
        RuntimeError: the program failed, with its last line of error.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as failed:
        given.write(stdin.encode())
        given.seek(0)
        process = os.fork()
        if not process:
            _run_program(code, given.fileno(), printed.fileno(), failed.fileno())
        _, status = os.waitpid(process, 0)
        printed.seek(0)
        text = printed.read(most_bytes).decode("utf-8", "replace")
        failed.seek(0)
        lines = failed.read(10_000).decode("utf-8", "replace").strip().splitlines()
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(lines[-1] if lines else f"the program ended with status {os.waitstatus_to_exitcode(status)}")
    return text


def _run_program(code: str, *descriptors: int) -> None:
    """Run the code as a program on these input, output and error descriptors, and exit the process."""
    status = 1
    try:
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
        sys.stdin, sys.stdout = os.fdopen(0, "r", closefd=False), os.fdopen(1, "w", closefd=False)
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(code, "solution.py", "exec"), module.__dict__)
        status = 0
    except SystemExit as end:
        status = 0 if end.code in (None, 0) else 1
    except BaseException as error:  # any exception that ends a program is an outcome of its run
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(status)


def _builtin_name(kind: type[BaseException]) -> str:
    """Name of the nearest built-in exception."""
    return next(each.__name__ for each in kind.__mro__ if getattr(builtins, each.__name__, None) is each)


def main() -> None:
    limits = json.loads(sys.argv[1])
    requests, replies = contain(limits)
    served = _Served(limits["value_bytes"])
    send(replies, {"ready": True})
    while True:
        message = receive(requests, limits["value_bytes"])
        try:
            reply = served.answer(message)
        except BaseException as error:  # any exception of a solution is an outcome of its call
            kind = type(error)
            reply = {"raised": kind.__name__, "is": _builtin_name(kind), "text": str(error)[:1000]}
        send(replies, reply)


if __name__ == "__main__":
    main()
