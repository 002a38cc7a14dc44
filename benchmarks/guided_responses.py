"""Samples guided responses with everything that the measures read, one JSON object a line.

`python -m benchmarks.guided_responses --out responses.jsonl RECIPE [key=value ...]`

Each problem of the recipe gets `--own` samples on the plain prompt, and if none is correct `--guided` ones with the expert's
solution in view. Unlike a run's rows, each response keeps its token ids, and each correct one both lists of log-probs. Needs
one core and no engine. The same command continues: problems in the file are not sampled again.

The texts of a data set stay out of the repository; it has the labels alone (`benchmarks/measure_labels.jsonl`). Those of the
pages were made with

    python -m benchmarks.guided_responses --out tiny.jsonl --own 0 --guided 4 --batch 16 jobs/recipes/demo.yaml
        data.generated_problems=180

stopped after 64 problems. A model that writes at length, on GSM8K: a recipe with `model.path`, `data.path`, `data.format: gsm8k`
and nothing of the demo's prompts.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.torch_sampler import TorchSampler
from offsft.config import Recipe
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion, Outcome, Problem


def sampled(
    problems: list[Problem], prompts: Prompts, sampler: TorchSampler, recipe: Recipe, samples: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The responses to a batch of problems, judged; correct ones are scored on the plain prompt."""
    rewrite = recipe.rewrite
    params = SamplingParams(rewrite.max_tokens, rewrite.temperature, rewrite.top_p)
    solved: set[str] = set()
    for stage, n in samples.items():
        asked = [problem for problem in problems if problem.id not in solved]
        if not n or not asked:
            continue
        ids = [prompts.plain(each) if stage == "self" else prompts.guided(each) for each in asked]
        for problem, completions in zip(asked, sampler.sample_batch(ids, n, params), strict=True):
            for completion in completions:
                row = _row(problem, stage, completion, prompts, sampler)
                if row["outcome"] == Outcome.CORRECT:
                    solved.add(problem.id)
                yield row | {"model": recipe.model.path, "undistorted": params.undistorted}


def _row(
    problem: Problem, stage: str, completion: Completion, prompts: Prompts, sampler: TorchSampler
) -> dict[str, Any]:
    from offsft.verify.math import judge

    outcome = Outcome.TRUNCATED
    if completion.finished:
        outcome = judge(completion.text, problem.answer).outcome
    row = {"problem": asdict(problem), "stage": stage, "outcome": outcome, "text": completion.text}
    row |= {"token_ids": completion.token_ids, "behavior_logprobs": completion.logprobs}
    if stage == "guided" and completion.finished:
        row |= {"prompt": prompts.text(prompts.guided(problem)), "expert_ids": prompts.response(problem.solution)}
    if outcome is Outcome.CORRECT:
        (row["policy_logprobs"],) = sampler.score_batch([(prompts.plain(problem), completion.token_ids)])
    return row


def read_problems(recipe: Recipe) -> list[Problem]:
    """The recipe's problems, in order; rows that the intake would refuse are passed over."""
    from offsft.data.formats import RawRow, parse
    from offsft.demo.problems import generate

    data = recipe.data
    if data.path == "generated":
        rows = generate(data.generated_problems, split="train", seed=data.generated_seed)
        lines, layout = [json.dumps(row) for row in rows], "own"
    else:
        lines = [line for path in data.paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
        layout = data.format
    raws = [RawRow("rows", number, line.encode()) for number, line in enumerate(lines[: data.limit], 1)]
    return [each for each in (parse(raw, layout, data.fields) for raw in raws) if isinstance(each, Problem)]


def write_all(recipe: Recipe, model: str, out: Path, samples: dict[str, int], batch: int) -> None:
    known = {json.loads(line)["problem"]["id"] for line in out.read_text().splitlines()} if out.exists() else set()
    problems = [each for each in read_problems(recipe) if each.id not in known]
    prompts = load_prompts(model, None, recipe.prompt, recipe.model.thinking)
    sampler = TorchSampler(model, (prompts.end_of_turn,), prompts.text, recipe.seed)
    for start in range(0, len(problems), batch):
        rows = list(sampled(problems[start : start + batch], prompts, sampler, recipe, samples))
        with out.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{start + batch} of {len(problems)} problems, {len(rows)} responses", flush=True)


def main() -> None:
    from offsft.config.loading import load
    from offsft.demo.model import embedded_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--own", type=int, default=1)
    parser.add_argument("--guided", type=int, default=3)
    parser.add_argument("--batch", type=int, default=60, help="problems that are sampled together")
    arguments = parser.parse_args()
    recipe = load(arguments.recipe, arguments.settings)
    model = str(embedded_model()) if recipe.model.path == "embedded" else recipe.model.path
    samples = {"self": arguments.own, "guided": arguments.guided}
    write_all(recipe, model, arguments.out, samples, arguments.batch)


if __name__ == "__main__":
    main()
