"""Values between the process of a solution and the process of the tests, as data: nothing that arrives is ever run.

A line of JSON each way. A value is a plain JSON one, or a list of its kind and its content. Objects that are no data stay
where they are and cross as a number (`object`).
"""

import json
import math
from collections.abc import Callable
from typing import Any, BinaryIO

_CONTAINERS = {"tuple": tuple, "set": set, "frozenset": frozenset}
_SMALL = 1 << 53


class Gone(Exception):
    """The other side has ended, or says what cannot be read."""


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: BinaryIO, most_bytes: int) -> dict[str, Any]:
    """The next message.

    Raises:
        Gone: there is none, it is longer than `most_bytes`, or no message.
    """
    line = stream.readline(most_bytes + 1)
    if not line.endswith(b"\n"):
        raise Gone("the solution ended its process" if len(line) <= most_bytes else "the solution's value is too long")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Gone("the solution wrote into the channel") from None
    if not isinstance(message, dict):
        raise Gone("the solution wrote into the channel")
    return message


def encoded(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON; `keep` numbers what is no data. Subclasses of data types are no data."""
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["int", hex(value)]
    if kind is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if kind is complex:
        return ["complex", [encoded(value.real, keep), encoded(value.imag, keep)]]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind is list:
        return ["list", [encoded(item, keep) for item in value]]
    if kind in (tuple, set, frozenset):
        return [kind.__name__, [encoded(item, keep) for item in value]]
    if kind is dict:
        return ["dict", [[encoded(key, keep), encoded(item, keep)] for key, item in value.items()]]
    return ["object", keep(value)]


def decoded(value: Any, known: Callable[[int], Any]) -> Any:
    """What `encoded` made; `known` finds the object of a number.

    Raises:
        Gone: it is nothing of the kind.
    """
    if not isinstance(value, list):
        return value
    try:
        kind, content = value
        if kind == "list":
            return [decoded(item, known) for item in content]
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](decoded(item, known) for item in content)
        if kind == "dict":
            return {decoded(key, known): decoded(item, known) for key, item in content}
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float(content)
        if kind == "complex":
            return complex(decoded(content[0], known), decoded(content[1], known))
        if kind in ("bytes", "bytearray"):
            return {"bytes": bytes, "bytearray": bytearray}[kind].fromhex(content)
        if kind == "object":
            return known(int(content))
    except (TypeError, ValueError, KeyError, IndexError, RecursionError):
        pass
    raise Gone("the solution wrote into the channel")


def contain(limits: dict[str, int]) -> tuple[BinaryIO, BinaryIO]:
    """Limit this process for good, and give its standard input and output to the caller alone.

    `limits`: `cpu_s`, `memory_bytes`, `processes`, `file_bytes`, and `user` to become (0: stay).
    """
    import os
    import resource

    channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    if limits["user"]:
        os.setgroups([])
        os.setresgid(*[limits["user"]] * 3)
        os.setresuid(*[limits["user"]] * 3)
    for name, limit in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (limit, limit))
    return channel
