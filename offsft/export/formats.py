"""The layouts of other trainers, and a rewrite as a record of each.

`messages`, `prompt_completion` and `dpo` are TRL's conversational data sets, `sharegpt` is LLaMA-Factory's and Axolotl's,
`rl` is verl's (`data_source`, `prompt`, `ability`, `reward_model`, `extra_info`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from offsft.prompts.rendering import fill_template
from offsft.records import Outcome, Problem

Format = Literal["messages", "prompt_completion", "sharegpt", "dpo", "rl"]

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SPEECHES = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
_ORIGIN = [("id", pa.string()), ("source", pa.string())]
SCHEMAS: dict[Format, pa.Schema] = {
    "messages": pa.schema([("messages", _TURNS), *_ORIGIN]),
    "prompt_completion": pa.schema([("prompt", _TURNS), ("completion", _TURNS), *_ORIGIN]),
    "sharegpt": pa.schema([("conversations", _SPEECHES), *_ORIGIN]),
    "dpo": pa.schema([("prompt", _TURNS), ("chosen", _TURNS), ("rejected", _TURNS), *_ORIGIN]),
    "rl": pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", _TURNS),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            (
                "extra_info",
                pa.struct(
                    [
                        ("split", pa.string()),
                        ("index", pa.int64()),
                        ("id", pa.string()),
                        ("check", pa.string()),
                        ("pass_rate", pa.float64()),
                        ("samples", pa.int64()),
                        ("correct", pa.int64()),
                        ("source", pa.string()),
                    ]
                ),
            ),
        ]
    ),
}
"""The columns of each format. `id` and `source` say where a row comes from; trainers pass them by."""
FORMATS: tuple[Format, ...] = tuple(SCHEMAS)

REFUSED = (
    *(Outcome.WRONG, Outcome.NO_ANSWER),
    *(Outcome.UNSUPPORTED, Outcome.FALSE_STEP, Outcome.COPIED, Outcome.LEAKED, Outcome.BARE),
)
"""Outcomes of attempts that `dpo` may hold against a kept response: finished, and judged on what they say."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a record needs of the run beside its row.

    `own_stages` are the names of the stages that ask the policy the plain prompt; `checks` has the problems' `check` by id,
    as JSON text, where there is one.
    """

    plain: str
    system: str | None
    own_stages: frozenset[str]
    domain: str
    data_source: str
    checks: Mapping[str, str]


def record(kind: Format, row: Mapping[str, Any], layout: Layout, number: int) -> dict[str, Any] | None:
    """A rewrite as a record of the format, or None if it is none: for `dpo`, without a refused attempt.

    `number` is the record's place in the file.
    """
    asked = _asked(row, layout)
    said = [{"role": "assistant", "content": row["response"]}]
    origin = {"id": row["id"], "source": row["source"]}
    match kind:
        case "messages":
            return {"messages": [*asked, *said], **origin}
        case "prompt_completion":
            return {"prompt": asked, "completion": said, **origin}
        case "sharegpt":
            names = {"system": "system", "user": "human", "assistant": "gpt"}
            speeches = [{"from": names[turn["role"]], "value": turn["content"]} for turn in [*asked, *said]]
            return {"conversations": speeches, **origin}
        case "dpo":
            refused = refused_attempt(row, layout.own_stages)
            if refused is None:
                return None
            return {"prompt": asked, "chosen": said, "rejected": [{"role": "assistant", "content": refused}], **origin}
        case "rl":
            return _rl_record(row, layout, asked, number)


def refused_attempt(row: Mapping[str, Any], own_stages: frozenset[str]) -> str | None:
    """The text of the last refused attempt, one of the policy on the plain prompt if there is any; None without one."""
    refused = [
        attempt
        for attempt in row["attempts"]
        if attempt["outcome"] in REFUSED and attempt["text"] and attempt["text"] != row["response"]
    ]
    own = [attempt for attempt in refused if attempt["stage"] in own_stages]
    return (own or refused)[-1]["text"] if refused else None


def pass_counts(attempts: Sequence[Mapping[str, Any]], own_stages: frozenset[str]) -> tuple[int, int]:
    """Samples of the policy on the plain prompt, and the correct ones among them."""
    outcomes = [attempt["outcome"] for attempt in attempts if attempt["stage"] in own_stages and attempt["tokens"]]
    return len(outcomes), sum(outcome == Outcome.CORRECT for outcome in outcomes)


def _asked(row: Mapping[str, Any], layout: Layout) -> list[dict[str, str]]:
    problem = Problem(row["id"], row["problem"], row["solution"], row["answer"])
    user = {"role": "user", "content": fill_template(layout.plain, problem).strip()}
    return [{"role": "system", "content": layout.system}, user] if layout.system else [user]


def _rl_record(row: Mapping[str, Any], layout: Layout, asked: list[dict[str, str]], number: int) -> dict[str, Any]:
    samples, correct = pass_counts(row["attempts"], layout.own_stages)
    check = layout.checks.get(row["id"])
    return {
        "data_source": layout.data_source,
        "prompt": asked,
        "ability": layout.domain,
        # Of code there is no answer: its tests are what a response is judged by.
        "reward_model": {"style": "rule", "ground_truth": row["answer"] or check or ""},
        "extra_info": {
            "split": "train",
            "index": number,
            "id": row["id"],
            "check": check,
            "pass_rate": correct / samples if samples else None,
            "samples": samples,
            "correct": correct,
            "source": row["source"],
        },
    }
