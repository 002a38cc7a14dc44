"""Exchange of values between the solution's process and the tests' process, as data: nothing that arrives is ever run.

Each message is one line of JSON. A value is plain JSON, or a list of its kind and its content (`values`). Objects that
are not data stay where they are and are sent as a number (`object`).
"""

import json
import math
from collections.abc import Callable
from typing import Any, BinaryIO

from offsft.verify.sandbox.values import MAKE, take

_CONTAINERS = {"tuple": tuple, "set": set, "frozenset": frozenset}
_SMALL = 1 << 53


class Gone(Exception):
    """The other side has ended, or sent an unreadable message."""


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: BinaryIO, most_bytes: int) -> dict[str, Any]:
    """Read the next message.

    Raises:
        Gone: there is none, it is longer than `most_bytes`, or it is not a valid message.
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


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """Encode a value as JSON; `keep` numbers objects that are not data, such as those of the solution's classes."""
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["int", hex(value)]
    if kind is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if kind is complex:
        return ["complex", [encode(value.real, keep), encode(value.imag, keep)]]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind is list:
        return ["list", [encode(item, keep) for item in value]]
    if kind in (tuple, set, frozenset):
        return [kind.__name__, [encode(item, keep) for item in value]]
    if kind is dict:
        return ["dict", [[encode(key, keep), encode(item, keep)] for key, item in value.items()]]
    taken = take(value)
    return ["object", keep(value)] if taken is None else [taken[0], encode(taken[1], keep)]


def decode(value: Any, known: Callable[[int], Any]) -> Any:
    """Decode the output of `encode`; `known` finds the object of a number.

    Raises:
        Gone: it is not an encoded value.
    """
    if not isinstance(value, list):
        return value
    try:
        kind, content = value
        if kind == "list":
            return [decode(item, known) for item in content]
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](decode(item, known) for item in content)
        if kind == "dict":
            return {decode(key, known): decode(item, known) for key, item in content}
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float(content)
        if kind == "complex":
            return complex(decode(content[0], known), decode(content[1], known))
        if kind in ("bytes", "bytearray"):
            return {"bytes": bytes, "bytearray": bytearray}[kind].fromhex(content)
        if kind == "object":
            return known(int(content))
        return MAKE[kind](decode(content, known))
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, ImportError, RecursionError):
        pass
    raise Gone("the solution wrote into the channel")


def contain(limits: dict[str, int]) -> tuple[BinaryIO, BinaryIO]:
    """Limit this process permanently, and return its standard input and output for the caller's use only.

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
