"""What is wrong with a body, in the words of whoever wrote it: the field by its own path, not by our models' internals."""

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails

from .errors import ApiError

_PREFIX = "Input should be "


def invalid(error: RequestValidationError) -> ApiError:
    """The answer to a body that does not fit its route."""
    errors: Sequence[Any] = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        where = first["loc"][-1]
        return ApiError(
            400, f"the body is not valid JSON: {first['ctx']['error']}, at character {where}", code="invalid_json"
        )
    if first["type"] == "model_attributes_type" and first["loc"] == ("body",):
        return ApiError(
            400, "the body must be a JSON object, sent as content-type application/json", code="invalid_json"
        )
    if first["type"] == CLIENT_MISTAKE:
        param = first["ctx"]["param"] or None
        return ApiError(400, first["ctx"]["message"], code="invalid_value", param=param)
    if first["loc"][0] != "body":
        return ApiError(400, f"{'.'.join(map(str, first['loc']))}: {_lower(first['msg'])}", code="invalid_value")
    path, message = explain([_placed({**each, "loc": each["loc"][1:]}, error.body) for each in errors], error.body)
    return ApiError(400, f"{path or 'body'}: {message}", code="invalid_value", param=path or None)


CLIENT_MISTAKE = "client_mistake"
"""Type of the validation errors whose message and field are given as they are (`services.openai_bodies`)."""


def explain(errors: Sequence[ErrorDetails | dict[str, Any]], body: Any) -> tuple[str, str]:
    """The path of the first wrong field in `body`, and what is wrong there.

    Where a field may have several forms, pydantic reports each form's errors. Those of the form that fits best are told:
    of the branch without a wrong tag, then without a missing field, then of its very type, then whose error lies deepest, then with the fewest.
    """
    branches: dict[tuple[Any, ...], list[Any]] = {}
    for each in errors:
        branches.setdefault(_branch(each["loc"], body), []).append(each)
    best = min(branches.values(), key=lambda branch: _misfit(branch, body))
    first = next((each for each in best if each["type"] == "literal_error"), best[0])
    path = client_path(first["loc"], body, first["type"])
    alike = [e for e in errors if e["type"] == first["type"] or e["type"].endswith("_type")]
    here = [e["msg"] for e in alike if client_path(e["loc"], body, e["type"]) == path]
    return path, _joined(dict.fromkeys([first["msg"], *here]))


def _placed(error: dict[str, Any], body: Any) -> dict[str, Any]:
    """An error with its whole place in the body, if a validator reports only the place within what it looked at."""
    loc = error["loc"]
    if not loc or not isinstance(body, dict) or loc[0] in body or isinstance(loc[0], str):
        return error
    path = next(_paths_to(error["input"], body), None)
    if path is None:
        return error
    return {**error, "loc": (*path, loc[-1]) if error["type"] == "missing" else path}


def _paths_to(wanted: Any, value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if value is wanted:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from _paths_to(wanted, each, (*path, name))


def client_path(loc: Sequence[Any], body: Any, kind: str) -> str:
    """The path of an error as the client would write it: `messages.0.content`."""
    return ".".join(str(part) for part in _own_parts(loc, body, kind))


def _own_parts(loc: Sequence[Any], body: Any, kind: str) -> Iterator[Any]:
    """The parts of an error's place that lead through the client's body; names of our types are left out."""
    here = body
    for number, part in enumerate(loc):
        if _leads_on(here, part):
            here = here[part]
        elif not (number == len(loc) - 1 and kind == "missing"):
            continue
        yield part


def _branch(loc: Sequence[Any], body: Any) -> tuple[Any, ...]:
    """The place of an error up to the first name of one of our types, which says which form was tried."""
    here = body
    for number, part in enumerate(loc):
        if not _leads_on(here, part):
            return tuple(loc[: number + 1])
        here = here[part]
    return tuple(loc)


def _leads_on(here: Any, part: Any) -> bool:
    if isinstance(here, list):
        return isinstance(part, int) and 0 <= part < len(here)
    return isinstance(here, dict) and part in here


def _misfit(branch: list[Any], body: Any) -> tuple[bool, bool, bool, int, int]:
    kinds = [each["type"] for each in branch]
    depth = sum(1 for _ in _own_parts(branch[0]["loc"], body, kinds[0]))
    other_type = all(kind.endswith("_type") for kind in kinds)
    return "literal_error" in kinds, "missing" in kinds, other_type, -depth, len(kinds)


def _joined(messages: Any) -> str:
    first, *more = messages
    return _lower(" or ".join([first, *(each.removeprefix(_PREFIX) for each in more if each.startswith(_PREFIX))]))


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
