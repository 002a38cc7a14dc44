"""The Parquet layouts of a run's folder, and rewrites as rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from offsft.records import Attempt, Measures, Opinion, Rewrite

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

_MEASURE_TYPES = {"float": pa.float32(), "int": pa.int32(), "bool": pa.bool_(), "str": pa.string()}
MEASURES = pa.struct(
    [(field.name, _MEASURE_TYPES[str(field.type).removesuffix(" | None")]) for field in fields(Measures)]
)
"""`offsft.records.Measures` as a column of rows."""

OPINIONS = pa.list_(pa.struct([("verifier", pa.string()), ("outcome", pa.string()), ("why", pa.string())]))
"""`offsft.records.Opinion` of each verifier of a chain; null for a verifier alone."""

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
                    [
                        ("stage", pa.string()),
                        ("outcome", pa.string()),
                        ("tokens", pa.int32()),
                        ("text", pa.string()),
                        ("why", pa.string()),
                        ("opinions", OPINIONS),
                    ]
                )
            ),
        ),
        ("generated_tokens", pa.int64()),
        ("measures", MEASURES),
        ("details", pa.string()),
        ("verifier", pa.string()),
        ("policy", pa.string()),
        ("prompt_version", pa.string()),
    ]
)
"""`rewrites/`: one row per problem. Log-probs in nats; `behavior_logprobs` is null for demonstrations.

`source` is the name of the stage that gave the response, `details` that stage's record of it, as JSON text or null.
"""

SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("logprobs", pa.list_(pa.float32())),
        ("behavior", pa.list_(pa.float32())),
    ]
)
"""`gap/`: one row per response; log-probs in nats under the model that scored, `behavior` as in the rewrites."""

SUITE_SCHEMA = PROBLEM_SCHEMA.append(pa.field("suite", pa.string()))
"""`evaluation/problems/` of suites: problems, each with its suite."""

_SAMPLES = pa.list_(
    pa.struct(
        [
            ("response", pa.string()),
            ("outcome", pa.string()),
            ("extracted", pa.string()),
            ("tokens", pa.int32()),
            ("opinions", OPINIONS),
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
        (
            "drift",
            pa.struct(
                [
                    ("prompt_ids", pa.list_(pa.int32())),
                    ("response_ids", pa.list_(pa.int32())),
                    ("logprobs", pa.list_(pa.float32())),
                ]
            ),
        ),
    ]
)
"""`evaluation/<model>/`: one row per problem, its samples nested; `greedy` holds one additional answer if requested.

`drift` is null, or a sample of the first model at temperature 1, with its log-probs (nats) under the row's model.
"""


_REWRITE_FIELDS = [field.name for field in fields(Rewrite)]
_ATTEMPT_FIELDS = [field.name for field in fields(Attempt)]


def rewrite_row(rewrite: Rewrite, *, verifier: str, policy: str, prompt_version: str) -> dict[str, Any]:
    """A rewrite as a row of REWRITE_SCHEMA, with its provenance."""
    # dataclasses.asdict would copy each of the thousands of token ids and log-probs one by one: most of a row's time.
    row = {name: getattr(rewrite, name) for name in _REWRITE_FIELDS}
    row["attempts"] = [
        {name: getattr(attempt, name) for name in _ATTEMPT_FIELDS} | {"opinions": opinion_rows(attempt.opinions)}
        for attempt in rewrite.attempts
    ]
    row["measures"] = None if rewrite.measures is None else asdict(rewrite.measures)
    row["details"] = None if rewrite.details is None else json.dumps(rewrite.details, ensure_ascii=False)
    return row | {"verifier": verifier, "policy": policy, "prompt_version": prompt_version}


def opinion_rows(opinions: Sequence[Opinion]) -> list[dict[str, str]] | None:
    """Opinions as JSON-like rows; None for a verifier alone, which has none."""
    return [asdict(opinion) for opinion in opinions] or None
