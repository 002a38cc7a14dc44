"""Values of a row by name: paths through objects and lists, templates over several fields, texts in their usual shapes."""

import json
import math
import re
from typing import Any, TypeGuard

from offsft.data.rows import Reason, Unusable, kind_of

_PLACE = re.compile(r"\{([^{}]+)\}")
_STEP = re.compile(r"[^.\[\]]+|\[-?\d+\]")
_MISSING = object()
_ROLES = {
    "user": {"user", "human", "prompter", "question"},
    "assistant": {"assistant", "gpt", "bot", "model", "chatgpt", "answer"},
}
_ROLE_NAMES = ("role", "from", "speaker")
_CONTENT_NAMES = ("content", "value", "text")


def has(row: dict[str, Any], name: str) -> bool:
    """Whether a row has the field at a path, with any value but null."""
    return find(row, name) not in (_MISSING, None)


def find(row: Any, name: str, default: Any = _MISSING) -> Any:
    """The value at a path such as `reward_model.ground_truth` or `solutions[0].text`; `default` if there is none.

    A field whose name is the whole path comes first. A name behind a list is looked up in each of its objects. Text that
    holds JSON is read where a path leads into it.
    """
    if isinstance(row, dict) and name in row:
        return row[name]
    value = row
    for step in _STEP.findall(name):
        value = _step(value, step)
        if value is _MISSING:
            return default
    return value


def _step(value: Any, step: str) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _MISSING
    if isinstance(value, list):
        number = step.strip("[]")
        if re.fullmatch(r"-?\d+", number):
            return value[int(number)] if -len(value) <= int(number) < len(value) else _MISSING
        found = [_step(each, step) for each in value]
        return found if found and _MISSING not in found else _MISSING
    return value.get(step, _MISSING) if isinstance(value, dict) else _MISSING


def get(row: dict[str, Any], name: str, setting: str | None = None) -> Any:
    """The value at a path.

    Raises:
        Unusable: the row has no such field; the detail says which it has, and names the `setting`.
    """
    value = find(row, name)
    if value is _MISSING:
        has = ", ".join(sorted(map(str, row))[:12]) or "no fields"
        hint = f"; set {setting}=..." if setting else "; is this the right data.format?"
        raise Unusable(Reason.MISSING_FIELD, f"the field {name!r} is missing; the row has: {has}{hint}")
    return value


def text(row: dict[str, Any], name: str | list[str], setting: str | None = None, *, of: str = "user") -> str:
    """The text of a field, of several joined by blank lines, or of a template such as `{Body} {Question}`.

    A chat in a field gives the turn `of` the user or the assistant.

    Raises:
        Unusable: a field is missing, empty, or holds no text.
    """
    if isinstance(name, list):
        parts = [_part_of(row, each, setting, of) for each in name]
        return _not_empty("\n\n".join(part.strip() for part in parts if part.strip()), " and ".join(name))
    if _PLACE.search(name) and name not in row:
        filled = _PLACE.sub(lambda place: _part_of(row, place[1], setting, of), name)
        return _not_empty(filled if _PLACE.sub("", name).strip() != filled.strip() else "", name)
    return _not_empty(_text_of(get(row, name, setting), name, of), name)


def _part_of(row: dict[str, Any], name: str, setting: str | None, of: str) -> str:
    """The text of one of several fields, which may be empty, null, or a list of lines."""
    value = get(row, name, setting)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return "\n".join(value)  # MBPP's tests
    return "" if value is None else _text_of(value, name, of)


def _not_empty(value: str, name: str) -> str:
    if not value.strip():
        raise Unusable(Reason.EMPTY_FIELD, f"the field {name!r} is empty")
    return value


def _text_of(value: Any, name: str, of: str) -> str:
    """The text in a value: itself, the only one of a list, the parts of a message, or a turn of a chat."""
    chat = chat_in(value)
    if chat is not None:
        return turn_of(chat, of, name)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, dict) and any(each in value for each in _ROLE_NAMES):
        return _content(value, name)
    if isinstance(value, list) and value and all(isinstance(each, dict) and "type" in each for each in value):
        return _parts(value, name)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        raise Unusable(Reason.WRONG_TYPE, f"the field {name!r} holds {len(value)} texts; name one of them: {name}[0]")
    raise Unusable(Reason.WRONG_TYPE, f"the field {name!r} holds {kind_of(value)}, not text")


def number_text(value: Any) -> str | None:
    """The text of a finite number, `27` for 27.0; None for any other value."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return None


def is_chat(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is a list of turns: objects that name who speaks."""
    return bool(isinstance(value, list) and value) and all(
        isinstance(turn, dict) and any(isinstance(turn.get(name), str) for name in _ROLE_NAMES) for turn in value
    )


def chat_in(value: Any) -> list[dict[str, Any]] | None:
    """The chat in a value, which may be JSON text, as CSV files have it; None if there is none."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if is_chat(value) else None


def turn_of(turns: Any, who: str, name: str) -> str:
    """What the user asks first in a chat, or the assistant's answer to it; the system's turn is left to the prompt.

    Raises:
        Unusable: it is no list of turns, or `who` says nothing in it.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Unusable(Reason.WRONG_TYPE, f"the field {name!r} is not a list of objects")
    asked: list[str] = []
    has_user = any(_role(turn) in _ROLES["user"] for turn in turns)
    for turn in turns:
        role = _role(turn)
        if role in _ROLES["user"]:
            asked.append(_content(turn, name))
        elif role in _ROLES["assistant"] and (asked or not has_user):
            if who == "assistant":
                return _content(turn, name)
            break
    if who == "user" and asked:
        return "\n\n".join(asked)
    speaking = ", ".join(dict.fromkeys(_role(turn) or "nobody" for turn in turns)) or "nobody"
    raise Unusable(
        Reason.MISSING_FIELD, f"the field {name!r} holds turns of {speaking}, none of the {who} in its place"
    )


def _role(turn: dict[str, Any]) -> str:
    return next((str(turn[name]).strip().lower() for name in _ROLE_NAMES if isinstance(turn.get(name), str)), "")


def _content(turn: dict[str, Any], name: str) -> str:
    value = next((turn[each] for each in _CONTENT_NAMES if turn.get(each) is not None), None)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return _parts(value, name)
    raise Unusable(Reason.WRONG_TYPE, f"a turn in {name!r} holds {kind_of(value)}, not text")


def _parts(parts: list[dict[str, Any]], name: str) -> str:
    other = sorted({str(part.get("type")) for part in parts} - {"text", "input_text", "output_text"})
    if other:
        raise Unusable(
            Reason.WRONG_TYPE, f"{name!r} holds parts of the type {', '.join(other)}; only text can be asked"
        )
    return "".join(str(part.get("text") or "") for part in parts)
