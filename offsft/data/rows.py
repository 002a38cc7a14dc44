"""Raw rows of problem files, and rejections with a reason. Rows are untrusted: whatever they hold, nothing raises."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_RAW_CHARACTERS = 2000
_MALFORMED = "\0malformed"


class Reason(StrEnum):
    """Why a row is in quarantine."""

    NOT_UTF8 = "not_utf8"
    BAD_JSON = "bad_json"
    BAD_ROW = "bad_row"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    EMPTY_FIELD = "empty_field"
    WRONG_TYPE = "wrong_type"
    NO_ANSWER = "no_answer"
    AMBIGUOUS_ANSWER = "ambiguous_answer"
    CONTRADICTION = "contradiction"
    LOST_ESCAPE = "lost_escape"
    UNTESTABLE = "untestable"
    DUPLICATE = "duplicate"
    TOO_LONG = "too_long"
    POISON = "poison"
    CONTAMINATED = "contaminated"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One raw row of a file; `line` counts from 1 (rows of a Parquet file too)."""

    file: str
    line: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used. `detail` is one line; `raw` the row's beginning as text."""

    file: str
    line: int
    reason: Reason
    detail: str
    raw: str


class Unusable(Exception):
    """A row that cannot be used, with its reason and one line of detail; never leaves this folder."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def malformed(detail: str) -> bytes:
    """A row in place of one that its container could not give; `decode` rejects it with this detail."""
    return json.dumps({_MALFORMED: detail}).encode()


def decode(raw: bytes) -> dict[str, Any]:
    """The object of a raw row.

    Raises:
        Unusable: it is not UTF-8, not JSON, or not an object.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        tree = json.loads(text)
    except RecursionError:
        raise Unusable(Reason.BAD_JSON, "nested too deeply") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise Unusable(Reason.BAD_JSON, f"not valid JSON: {what} at character {error.pos + 1}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise Unusable(Reason.BAD_JSON, "a number with too many digits; write it as text") from None
    if not isinstance(tree, dict):
        raise Unusable(Reason.NOT_AN_OBJECT, f"a row must be a JSON object, this is {kind_of(tree)}")
    if tree.keys() == {_MALFORMED}:
        raise Unusable(Reason.BAD_ROW, str(tree[_MALFORMED]))
    return tree


def reject(row: RawRow, unusable: Unusable) -> Rejected:
    """The rejection of a row, with its place."""
    raw = row.raw[:_RAW_CHARACTERS].decode("utf-8", "replace")
    return Rejected(row.file, row.line, unusable.reason, " ".join(clean(str(unusable)).split()), raw)


def clean(text: str) -> str:
    """Remove NULs and lone surrogates, which neither Parquet nor a tokenizer accepts, and outer white space."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()


def kind_of(value: Any) -> str:
    """The type of a JSON value in words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object")
