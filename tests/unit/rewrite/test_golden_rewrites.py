"""A scripted rewriting of forty problems gives the rows and counts that were recorded first.

`golden_rewrites.json` holds, for two sets of settings, the columns of each row that a person can check, a hash of all
its columns, and the counts of `rewrite.json`. An intended change of rewrites is declared and rewrites the file.
"""

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config import Recipe
from offsft.data.tables import REWRITE_SCHEMA, rewrite_row
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Parts
from offsft.records import Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.run import count_rewrites
from offsft.rewrite.stages import open_stages
from offsft.storage.run_folder import RunFolder
from offsft.verify.math import judge

GOLDEN = Path(__file__).with_name("golden_rewrites.json")
PROBLEMS = 40
EOS = 0
COLUMNS = [
    "id",
    "problem",
    "answer",
    "solution",
    "source",
    "response",
    "prompt_ids",
    "response_ids",
    "behavior_logprobs",
    "policy_logprobs",
    "expert_ids",
    "expert_logprobs",
    "expert_mean_logprob",
    "attempts",
    "generated_tokens",
    "verifier",
    "policy",
    "prompt_version",
]

ATTEMPT = ["stage", "outcome", "tokens", "text"]
GUARDS_OFF = {
    "leaks": True,  # in words, as the guided stage has refused from the first
    "bare": False,
    "false_steps": None,
    "copied_share": None,
    "support": None,
    "first_support": None,
    "hint_lift": None,
}

CASES = {
    "as the policy samples": {
        "context_tokens": 400,
        "rewrite": {
            "stages": [
                {"kind": "self", "waves": [1, 1, 2, 4]},
                {"kind": "guided", "waves": [1, 1, 2], "min_share": 0.7},
                {"kind": "expert"},
            ],
            "max_tokens": 60,
            "guards": GUARDS_OFF,
        },
    },
    "cooler, in a short context": {
        "context_tokens": 105,
        "rewrite": {
            "stages": [{"kind": "self", "waves": [2, 2]}, {"kind": "guided", "waves": [2]}, {"kind": "expert"}],
            "temperature": 0.5,
            "pick": "most_likely",
            "keep_text": False,
            "max_tokens": 60,
            "guards": GUARDS_OFF,
        },
    },
}


class CharacterPrompts:
    """Prompts with one id per character; the guided prompt starts with `G`."""

    def plain(self, problem):
        return [ord(c) for c in problem.problem]

    def guided(self, problem):
        return [ord(c) for c in "G" + problem.problem + problem.solution]

    def response(self, text):
        return [*map(ord, text), EOS]

    def text(self, ids):
        return "".join(map(chr, ids))

    def parts(self, completion):
        return Parts("", completion.text, 0, finished=True)


async def verify(response, problem):
    return judge(response, problem.answer)


def problem(number):
    text = f"What is {number} plus {number + 1}?"
    solution = f"{number} + {number + 1} is {'the sum ' * (number % 5 * 2)}\\boxed{{{2 * number + 1}}}"
    return Problem(f"p{number:02}", text, solution, str(2 * number + 1))


def script(prompt, sample):
    """A model's response, chosen by a hash: problems with higher numbers are solved less often without guidance."""
    number = int(prompt.split(" ")[2])
    draw = hashlib.sha256(f"{prompt}/{sample}".encode()).digest()
    answer = 2 * number + 1
    guided = prompt[0] == "G"
    chance = 120 if guided else 200 - 10 * number
    if draw[0] < chance:
        words = ("So it is", "Adding both gives", "Step by step: it is", "")[draw[1] % 4]
        return f"{words} \\boxed{{{answer}}}".strip()
    return (
        f"It is \\boxed{{{answer + 1}}}",
        "I do not know",
        f"\\boxed{{{answer}}}" + " and so on" * 8,
        f"As the given solution says, \\boxed{{{answer}}}",
        f"\\boxed{{{answer}}}",
    )[draw[2] % (5 if guided else 3)]


def recipe_of(case):
    return Recipe.model_validate(
        {"run": "runs/test", "model": {"context_tokens": case["context_tokens"]}, "rewrite": case["rewrite"]}
        | {"evaluate": {"max_tokens": 60}}
    )


def rewritten(case):
    """The rows of one of CASES, as written."""
    recipe = recipe_of(case)
    prompts = CharacterPrompts()
    sampler = ScriptedSampler(script, encode=prompts.response, decode=lambda ids: "".join(map(chr, ids)))
    settings = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
    stages = open_stages(settings.stages, prompts)  # type: ignore[arg-type]

    async def rows():
        done = [
            await rewrite(
                problem(n),
                prompts=prompts,
                stages=stages,
                sampler=sampler,
                verifier=verify,
                settings=settings,  # type: ignore[arg-type]
            )
            for n in range(PROBLEMS)
        ]
        return [rewrite_row(each, verifier="math", policy="scripted", prompt_version="1") for each in done]

    return pa.Table.from_pylist(asyncio.run(rows()), schema=REWRITE_SCHEMA)


def seen(row):
    recorded = row | {"attempts": [{name: attempt[name] for name in ATTEMPT} for attempt in row["attempts"]]}
    text = json.dumps({name: recorded[name] for name in COLUMNS})
    return {
        "id": row["id"],
        "source": row["source"],
        "response": row["response"],
        "attempts": " ".join(f"{a['stage']}:{a['outcome']}:{a['tokens']}" for a in row["attempts"]),
        "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def rounded(value):
    """The value without the last digits of sums, which another build of numpy may add in another order."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def counts(case, table, run):
    folder = RunFolder(str(run))
    folder.rewrites.mkdir(parents=True)
    pq.write_table(table, folder.rewrites / "part.parquet")
    found = count_rewrites(recipe_of(case), folder)
    return {
        "sources": found["sources"],
        "gap": hashlib.sha256(json.dumps(rounded(found["gap"])).encode()).hexdigest()[:16],
        **{name: found[name] for name in ("problems", "quarantined", "generated_tokens")},
        **{name: rounded(found[name]) for name in ("expert_mean_logprob", "kept_mean_logprob")},
    }


@pytest.mark.parametrize("name", CASES)
def test_the_same_rewrites_as_when_they_were_recorded(name, tmp_path):
    golden = json.loads(GOLDEN.read_text())[name]
    table = rewritten(CASES[name])
    assert [seen(row) for row in table.to_pylist()] == golden["rows"]
    assert counts(CASES[name], table, tmp_path) == golden["counts"]


def test_every_outcome_of_the_cascade_is_among_the_golden_rows():
    golden = json.loads(GOLDEN.read_text())
    rows = [row for case in golden.values() for row in case["rows"]]
    outcomes = Counter(attempt.split(":")[1] for row in rows for attempt in row["attempts"].split())
    assert outcomes.keys() >= {"correct", "wrong", "no_answer", "truncated", "leaked", "bare", "too_long"}
    assert {row["source"] for row in rows} == {"self", "guided", "expert"}
