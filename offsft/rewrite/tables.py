"""The Parquet layouts of a run's folder, and rewrites as rows."""

from dataclasses import fields
from typing import Any

import pyarrow as pa

from offsft.records import Attempt, Rewrite

PROBLEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("problem", pa.string()),
        ("solution", pa.string()),
        ("answer", pa.string()),
        ("check", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
    ]
)
"""`problems/`: valid problems, and the place in the input that each came from."""

REWRITE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("solution", pa.string()),
        ("source", pa.string()),
        ("response", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("behavior_logprobs", pa.list_(pa.float32())),
        ("policy_logprobs", pa.list_(pa.float32())),
        ("expert_ids", pa.list_(pa.int32())),
        ("expert_logprobs", pa.list_(pa.float32())),
        ("expert_mean_logprob", pa.float32()),
        (
            "attempts",
            pa.list_(
                pa.struct(
                    [("stage", pa.string()), ("outcome", pa.string()), ("tokens", pa.int32()), ("text", pa.string())]
                )
            ),
        ),
        ("generated_tokens", pa.int64()),
        ("verifier", pa.string()),
        ("policy", pa.string()),
        ("prompt_version", pa.string()),
    ]
)
"""`rewrites/`: one row a problem. Log-probs in nats; `behavior_logprobs` is null for expert rows."""

SUITE_SCHEMA = PROBLEM_SCHEMA.append(pa.field("suite", pa.string()))
"""`evaluation/problems/` of suites: problems, and the suite that each is of."""

_SAMPLES = pa.list_(
    pa.struct(
        [
            ("response", pa.string()),
            ("outcome", pa.string()),
            ("extracted", pa.string()),
            ("tokens", pa.int32()),
        ]
    )
)
EVALUATION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("suite", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("samples", _SAMPLES),
        ("greedy", _SAMPLES),
    ]
)
"""`evaluation/<model>/`: one row a problem, its samples nested; `greedy` holds one more answer where it was asked for."""


_REWRITE_FIELDS = [field.name for field in fields(Rewrite)]
_ATTEMPT_FIELDS = [field.name for field in fields(Attempt)]


def rewrite_row(rewrite: Rewrite, *, verifier: str, policy: str, prompt_version: str) -> dict[str, Any]:
    """A rewrite as a row of REWRITE_SCHEMA, with where it came from."""
    # dataclasses.asdict would copy each of the thousands of token ids and log-probs by itself: most of a row's time.
    row = {name: getattr(rewrite, name) for name in _REWRITE_FIELDS}
    row["attempts"] = [{name: getattr(attempt, name) for name in _ATTEMPT_FIELDS} for attempt in rewrite.attempts]
    return row | {"verifier": verifier, "policy": policy, "prompt_version": prompt_version}
