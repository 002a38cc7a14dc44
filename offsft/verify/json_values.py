"""`verify.kind=json`: the response's JSON matches a schema and contains the reference's values."""

import json
import math
import re
from typing import Any

from offsft.config import VerifyConfig
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_TAIL_CHARACTERS = 200_000


class JsonJudge:
    """Judges JSON: `check.schema` is a JSON schema; `answer`, if not empty, is JSON whose values must all be present.

    An object may contain more than the reference; lists must have the same length. 1 and 1.0 are the same number, 1 and
    true are not.
    """

    def __init__(self, settings: VerifyConfig) -> None:
        pass

    def __call__(self, response: str, problem: Problem) -> Verdict:
        from jsonschema import Draft202012Validator

        found, where = _json_of(response[-_TAIL_CHARACTERS:])
        if not where:
            return Verdict(Outcome.NO_ANSWER, why="no JSON: the response is none, and holds no fenced block of it")
        text = json.dumps(found, ensure_ascii=False)[:300]
        schema = problem.check.get("schema")
        if schema is None and not problem.answer.strip():
            return Verdict(Outcome.ERROR, text, where, "the problem has neither check.schema nor an answer")
        errors = (
            [] if schema is None else sorted(Draft202012Validator(schema).iter_errors(found), key=lambda e: e.json_path)
        )
        if errors:
            return Verdict(Outcome.WRONG, text, where, f"{errors[0].json_path}: {errors[0].message}"[:200])
        if problem.answer.strip():
            missing = _difference(json.loads(problem.answer), found, "$")
            if missing is not None:
                return Verdict(Outcome.WRONG, text, where, missing[:200])
        return Verdict(Outcome.CORRECT, text, where, "as asked for")


def _json_of(response: str) -> tuple[Any, str]:
    candidates = [(response, "response"), *((block, "fenced block") for block in reversed(_FENCE.findall(response)))]
    for text, where in candidates:
        try:
            return json.loads(text), where
        except (ValueError, RecursionError):
            continue
    return None, ""


def _difference(wanted: Any, found: Any, path: str) -> str | None:
    """The first difference of `found` from the wanted value, in one line; None if it has all of it."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key not in found:
                return f"{path}.{key} is missing"
            different = _difference(value, found[key], f"{path}.{key}")
            if different is not None:
                return different
        return None
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{path} has {len(found)} items, not {len(wanted)}"
        pairs = enumerate(zip(wanted, found, strict=True))
        return next(filter(None, (_difference(a, b, f"{path}[{i}]") for i, (a, b) in pairs)), None)
    if isinstance(wanted, bool) or isinstance(found, bool) or not isinstance(wanted, int | float):
        same = type(wanted) is type(found) and wanted == found
    else:
        same = isinstance(found, int | float) and math.isclose(wanted, found, rel_tol=1e-9)
    return None if same else f"{path} is {json.dumps(found)[:60]}, not {json.dumps(wanted)[:60]}"
