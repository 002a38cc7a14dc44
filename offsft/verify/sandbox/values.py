"""Serialization of the standard library's values between the processes: each kind's name, content and constructor.

Nothing that arrives is run: a kind that is not in the table is refused, and values are constructed from data only.
"""

import collections
import datetime
import decimal
import fractions
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any

Taken = Callable[[Any], Any]
_DATES = (datetime.datetime, datetime.date, datetime.time)

TAKE: dict[type, Taken] = {
    fractions.Fraction: lambda value: [value.numerator, value.denominator],
    decimal.Decimal: str,
    datetime.datetime: lambda value: value.isoformat(),
    datetime.date: lambda value: value.isoformat(),
    datetime.time: lambda value: value.isoformat(),
    datetime.timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    uuid.UUID: str,
    pathlib.PosixPath: str,
    pathlib.PurePosixPath: str,
    range: lambda value: [value.start, value.stop, value.step],
    slice: lambda value: [value.start, value.stop, value.step],
    type(...): lambda value: 0,
    type(NotImplemented): lambda value: 0,
    collections.Counter: dict,
    collections.OrderedDict: lambda value: list(value.items()),
    collections.defaultdict: dict,
    collections.deque: lambda value: [list(value), value.maxlen],
    type({}.keys()): list,
    type({}.items()): list,
    type({}.values()): list,
    types.SimpleNamespace: lambda value: dict(vars(value)),
    types.MappingProxyType: dict,
}
"""Returns the content of a value, by its exact class."""

MAKE: dict[str, Taken] = {
    "Fraction": lambda made: fractions.Fraction(*made),
    "Decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda made: datetime.timedelta(*made),
    "UUID": uuid.UUID,
    "PosixPath": pathlib.PosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "range": lambda made: range(*made),
    "slice": lambda made: slice(*made),
    "ellipsis": lambda made: ...,
    "NotImplementedType": lambda made: NotImplemented,
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": lambda made: collections.defaultdict(None, made),
    "deque": lambda made: collections.deque(*made),
    "dict_keys": lambda made: dict.fromkeys(made).keys(),
    "dict_items": lambda made: dict(made).items(),
    "dict_values": lambda made: dict(enumerate(made)).values(),
    "SimpleNamespace": lambda made: types.SimpleNamespace(**made),
    "mappingproxy": types.MappingProxyType,
    "ndarray": lambda made: _array(*made),
    "number of numpy": lambda made: _array(made[0], [1], [made[1]])[0],
}

MUTABLE = (list, dict, set, collections.deque, collections.Counter, collections.OrderedDict, collections.defaultdict)
"""Kinds that a solution may change when a test passes them as arguments."""

BASES = (list, tuple, dict, set, frozenset, str, bytes, float, int)
"""Base classes that a solution's class may extend; its values are then those of the base."""


def take(value: Any) -> tuple[str, Any] | None:
    """A value's kind and content; None for a class that is not sent by value."""
    kind = type(value)
    if kind in TAKE:
        return kind.__name__, TAKE[kind](value)
    numpy = sys.modules.get("numpy")  # a solution that has not imported it has none of its values
    if numpy is not None and kind is numpy.ndarray and value.dtype.kind in "biufcU":
        return "ndarray", [value.dtype.str, list(value.shape), value.ravel().tolist()]
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufcU":
        return "number of numpy", [value.dtype.str, value.item()]
    return None


def base_value(value: Any) -> Any:
    """The base-class value of an instance of a solution's subclass; for an object that defines `==`, its attributes.

    It is read with the base's own methods, so that a class that lies about itself is not asked.
    """
    bases: tuple[Any, ...] = BASES
    for base in bases:
        if isinstance(value, base):
            if base is dict:
                return dict(dict.items(value))
            if base in (list, tuple, set, frozenset):
                return base(base.__iter__(value))
            return base.__getnewargs__(value)[0] if base is not bytes else bytes(bytes.__iter__(value))
    if type(value).__eq__ is object.__eq__ or not hasattr(value, "__dict__"):
        raise TypeError(f"a {type(value).__name__} has no value to compare")
    return [type(value).__name__, dict(vars(value))]


def _array(dtype: str, shape: list[int], items: list[Any]) -> Any:
    import numpy

    if not re.fullmatch(r"[<>|=][biufcU]\d+", dtype):
        raise ValueError("no array of numbers or texts")
    return numpy.array(items, dtype=dtype).reshape(shape)
