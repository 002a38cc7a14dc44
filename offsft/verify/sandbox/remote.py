"""The solution as the tests see it: objects are proxies, values are data."""

import builtins
from typing import Any

from offsft.verify.sandbox.values import MUTABLE
from offsft.verify.sandbox.wire import Gone, decode, encode, receive, send

_OPERATORS = (
    *("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("radd", "rsub", "rmul", "rtruediv", "rmod", "lshift", "rshift"),
)
_QUESTIONS = ("contains", "neg", "pos", "abs", "invert", "int", "float", "index", "round")


class SolutionError(Exception):
    """Replaces an exception of the solution that is not built in, or that would end the tests."""


class Remote:
    """Proxy of an object of the solution; it forwards the language's protocols to that object.

    `==` is not forwarded: an object's own claim is not proof. An instance of a subclass of a list, a number, ... is
    compared by its value as the base class reads it, and two objects of one class that defines `==` by their
    attributes. All other comparisons are by identity. Operators work between two objects of the solution. With data
    they work only if the test made the object itself, from a class whose name it wrote with a capital letter: otherwise
    a result could claim to be near enough to everything.
    """

    __slots__ = ("_class", "_link", "_made", "_number")

    def __init__(self, link: "Link", number: int, *, is_class: bool = False, made: bool = False) -> None:
        for name, value in (("_link", link), ("_number", number), ("_class", is_class), ("_made", made)):
            object.__setattr__(self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._own(self._link.call(self._number, None, arguments, named), made=self._class)

    def __getattr__(self, name: str) -> Any:
        return self._link.get(self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._protocol("__setattr__", name, value)

    def __len__(self) -> int:
        return self._protocol("__len__")

    def __iter__(self) -> Any:
        return self._link.call(self._number, "__iter__", (), {})

    def __next__(self) -> Any:
        return self._link.call(self._number, "__next__", (), {})

    def __reversed__(self) -> Any:
        return self._protocol("__reversed__")

    def __getitem__(self, key: Any) -> Any:
        return self._link.call(self._number, "__getitem__", (key,), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.call(self._number, "__setitem__", (key, value), {})

    def __delitem__(self, key: Any) -> None:
        self._protocol("__delitem__", key)

    def __enter__(self) -> Any:
        return self._own(self._protocol("__enter__"), made=self._made)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        return self._protocol("__exit__", None, None, None)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and self._link.is_instance(instance._number, self._number)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Remote) and other._number == self._number:
            return True
        mine, theirs = self._value(), other._value() if isinstance(other, Remote) else (False, other)
        return mine is not None and theirs is not None and mine[0] is theirs[0] and bool(mine[1] == theirs[1])

    def __hash__(self) -> int:
        value = self._value()
        try:
            return hash(self._number if value is None or value[0] else value[1])
        except TypeError:
            return hash(self._number)

    def __bool__(self) -> bool:
        for name in ("__bool__", "__len__"):
            try:
                return bool(self._link.call(self._number, name, (), {}))
            except AttributeError:
                continue
        return True

    def __str__(self) -> str:
        return self._link.call(self._number, "__str__", (), {})

    def __repr__(self) -> str:
        return self._link.call(self._number, "__repr__", (), {})

    def _protocol(self, name: str, *arguments: Any) -> Any:
        try:
            return self._link.call(self._number, name, arguments, {})
        except AttributeError as error:
            raise TypeError(str(error)) from None  # as the language does for an object without the method

    def _operate(self, name: str, *arguments: Any) -> Any:
        if not self._made and not (arguments and isinstance(arguments[0], Remote)):
            value = self._value()
            if value is None or value[0]:
                return NotImplemented
            return getattr(value[1], name)(*arguments)
        try:
            return self._own(self._link.call(self._number, name, arguments, {}), made=self._made)
        except AttributeError:
            return NotImplemented

    def _own(self, value: Any, *, made: bool) -> Any:
        if made and isinstance(value, Remote):
            object.__setattr__(value, "_made", True)
        return value

    def _value(self) -> tuple[bool, Any] | None:
        """Whether the object is compared by its attributes, and its value as data; None if it has no such value."""
        try:
            return self._link.value(self._number)
        except TypeError:
            return None


def _add_operators() -> None:
    for name in (f"__{each}__" for each in _OPERATORS + _QUESTIONS):

        def operator(self: Remote, *arguments: Any, _name: str = name) -> Any:
            found = self._operate(_name, *arguments)
            if found is NotImplemented and _name.strip("_") in _QUESTIONS:
                raise TypeError(f"{_name} is not defined")
            return found

        setattr(Remote, name, operator)


_add_operators()


class Link:
    """The channel to the solution's process; `asked` counts the tests' requests to the solution since it was loaded."""

    def __init__(self, requests: Any, replies: Any, value_bytes: int) -> None:
        self._requests, self._replies, self._value_bytes = requests, replies, value_bytes
        self._raised: dict[str, type[Exception]] = {}
        self.asked = 0

    def ready(self) -> None:
        receive(self._replies, self._value_bytes)

    def load(self, code: str) -> dict[str, Any]:
        """Load the solution and return its definitions, by name."""
        names = {}
        for name, what in self._ask({"do": "load", "code": code})["names"].items():
            if "raises" in what:
                self._raised[name] = names[name] = type(str(name), (_exception(what["raises"]),), {})
            else:
                names[name] = self._decode(what["value"])
                if isinstance(names[name], Remote) and name[:1].isupper():
                    object.__setattr__(names[name], "_class", True)
        self.asked = 0
        return names

    def output(self, code: str, stdin: str) -> str:
        """Run the solution as a program and return its output."""
        return str(self._ask({"do": "output", "code": code, "stdin": stdin})["value"])

    def get(self, number: int, name: str) -> Any:
        return self._decode(self._ask({"do": "get", "object": number, "name": name})["value"])

    def value(self, number: int) -> tuple[bool, Any]:
        reply = self._ask({"do": "value", "object": number})
        return reply["own"] is True, self._decode(reply["value"])

    def is_instance(self, number: int, of: int) -> bool:
        return self._ask({"do": "isinstance", "object": of, "of": number})["value"] is True

    def call(self, number: int, name: str | None, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        message = {"do": "call", "object": number, "name": name}
        message["arguments"] = [encode(each, _number) for each in arguments]
        message["named"] = {key: encode(each, _number) for key, each in named.items()}
        reply = self._ask(message)
        for argument, changed in zip(arguments, reply["changed"], strict=True):
            if changed is not None:
                _replace(argument, self._decode(changed))
        return self._decode(reply["value"])

    def _decode(self, value: Any) -> Any:
        return decode(value, lambda number: Remote(self, number))

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        try:
            send(self._requests, message)
        except BrokenPipeError:
            raise Gone("the solution ended its process") from None
        reply = receive(self._replies, self._value_bytes)
        if "raised" in reply:
            kind = self._raised.get(str(reply["raised"])) or _exception(reply["is"])
            try:
                error = kind(reply["text"])
            except TypeError:  # for example UnicodeDecodeError, whose constructor needs more than a message
                error = SolutionError(reply["text"])
            error.__dict__["of_solution"] = True
            raise error
        return reply


def _exception(name: Any) -> type[Exception]:
    found = getattr(builtins, str(name), None)
    return found if isinstance(found, type) and issubclass(found, Exception) else SolutionError


def _number(value: Any) -> int:
    if not isinstance(value, Remote):
        raise TypeError(f"a {type(value).__name__} cannot be handed to a solution: its process takes data only")
    return value._number


def _replace(argument: Any, changed: Any) -> None:
    if type(changed) is type(argument) and type(argument) in MUTABLE and changed != argument:
        argument.clear()
        argument.extend(changed) if hasattr(argument, "extend") else argument.update(changed)
