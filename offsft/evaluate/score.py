"""Log-probs of existing responses under any model, with the engines of the rewriting."""

from typing import Any

import pyarrow as pa

from offsft.config import GapSide, Recipe
from offsft.console import Console
from offsft.engine_actor import Done, EngineActor, EngineSpec, SamplerFactory, engine_spec
from offsft.engine_job import EngineJob
from offsft.errors import ModelError
from offsft.prompts import load_prompts
from offsft.records import Problem, Source
from offsft.run_folder import RunFolder
from offsft.storage import StoragePath, dataset, is_folder

SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("logprobs", pa.list_(pa.float32())),
        ("behavior", pa.list_(pa.float32())),
    ]
)
"""One row a response; log-probs in nats under the model that scored, `behavior` as in the rewrites."""


class Score(EngineActor):
    """`map_batches` class: batches of REWRITE_SCHEMA in, batches of SCORE_SCHEMA out, row for row."""

    stage = "score"

    def __init__(self, spec: EngineSpec, responses: str) -> None:
        super().__init__(spec)
        self._expert = responses == "expert"

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self.each(batch, self._row), schema=SCORE_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        ids = row["expert_ids"] if self._expert else row["response_ids"]
        logprobs = await self.sampler.score(row["prompt_ids"], ids)
        source = str(Source.EXPERT) if self._expert else row["source"]
        behavior = None if self._expert else row["behavior_logprobs"]
        scored = {"id": row["id"], "source": source, "logprobs": logprobs, "behavior": behavior}
        return scored, "scored", len(ids)


def run_score(
    recipe: Recipe,
    side: GapSide,
    model: str,
    rewrites: StoragePath,
    output: StoragePath,
    folder: RunFolder,
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
) -> None:
    """Score the rewrites' kept or expert responses under `model`; rows of SCORE_SCHEMA are left in `output`, resumably.

    Raises:
        ModelError: the model reads the rewrites' prompts as other tokens than they were written in.
        EngineError: no engine could start.
    """
    if sampler_factory is None:
        _check_tokens(recipe, model, rewrites)
    job = EngineJob(
        name=f"score: {side.responses}",
        actor=Score,
        problems=rewrites,
        output=output,
        committed=output.with_name(f"{output.name}.committed"),
        quarantine=output.with_name(f"{output.name}.quarantine"),
        batch_rows=recipe.rewrite.commit_problems,
        engine=recipe.engine,
    )
    job.run(
        lambda foreman: (
            engine_spec(
                recipe,
                model=model,
                policy=side.model,
                raw_distribution=True,
                logs=folder.logs,
                quarantine=job.quarantine,
                foreman=foreman,
                sampler_factory=sampler_factory,
            ),
            side.responses,
        ),
        console,
    )


def _check_tokens(recipe: Recipe, model: str, rewrites: StoragePath) -> None:
    """With another tokenizer or prompt, log-ratios would be of other tokens than those that were written."""
    columns = ["id", "problem", "solution", "answer", "prompt_ids"]
    row = dataset(rewrites).head(1, columns=columns).to_pylist()[0]
    revision = None if is_folder(model) else recipe.model.revision
    prompts = load_prompts(model, revision, recipe.prompt)
    if prompts.plain(Problem.from_row(row)) != row["prompt_ids"]:
        raise ModelError(
            f"{model} reads the prompts of {rewrites} as other tokens than they were written in: it has another"
            " tokenizer, or the recipe another prompt; log-ratios need the same tokens on both sides"
        )
