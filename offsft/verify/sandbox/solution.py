"""The process that holds a solution: it runs what it is asked to and answers with values. It never sees what is expected."""

import builtins
import json
import sys
import types
from typing import Any

from offsft.verify.sandbox.wire import contain, decoded, encoded, receive, send


class _Served:
    def __init__(self) -> None:
        self.objects: list[Any] = []

    def keep(self, value: Any) -> int:
        self.objects.append(value)
        return len(self.objects) - 1

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["do"] == "load":
            module = types.ModuleType("solution")
            sys.modules["solution"] = module
            exec(compile(message["code"], "solution.py", "exec"), module.__dict__)
            return {"names": self._names(module)}
        target = self.objects[message["object"]]
        if message["name"] is not None:
            target = getattr(target, message["name"])
        if message["do"] == "get":
            return {"value": encoded(target, self.keep)}
        arguments = [decoded(each, self.objects.__getitem__) for each in message["arguments"]]
        named = {name: decoded(each, self.objects.__getitem__) for name, each in message["named"].items()}
        value = target(*arguments, **named)
        # What the call did to lists, sets and dictionaries that it was given.
        changed = [encoded(each, self.keep) if type(each) in (list, dict, set) else None for each in arguments]
        return {"value": encoded(value, self.keep), "changed": changed}

    def _names(self, module: types.ModuleType) -> dict[str, Any]:
        names = {}
        for name, value in vars(module).items():
            if name.startswith("__") or isinstance(value, types.ModuleType):
                continue
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == "solution":
                names[name] = {"raises": _builtin_name(value)}
            else:
                names[name] = {"value": encoded(value, self.keep)}
        return names


def _builtin_name(kind: type[BaseException]) -> str:
    """The nearest built-in exception."""
    return next(each.__name__ for each in kind.__mro__ if getattr(builtins, each.__name__, None) is each)


def main() -> None:
    limits = json.loads(sys.argv[1])
    requests, replies = contain(limits)
    served = _Served()
    send(replies, {"ready": True})
    while True:
        message = receive(requests, limits["value_bytes"])
        try:
            reply = served.answer(message)
        except BaseException as error:  # whatever a solution raises is an outcome of its call
            kind = type(error)
            reply = {"raised": kind.__name__, "is": _builtin_name(kind), "text": str(error)[:1000]}
        send(replies, reply)


if __name__ == "__main__":
    main()
