"""Log-probs of existing responses under any model, computed with the rewriting engines."""

from typing import Any

import pyarrow as pa

from offsft.config import GapSide, Recipe
from offsft.data.tables import SCORE_SCHEMA
from offsft.errors import ConfigError, EngineError, ModelError
from offsft.inference.actor import Done, EngineActor
from offsft.inference.batch_job import EngineJob
from offsft.inference.spec import EngineSpec, SamplerFactory, engine_spec
from offsft.prompts import load_prompts
from offsft.records import EXPERT, Problem
from offsft.runtime.console import Console
from offsft.storage.paths import StoragePath, dataset, is_folder
from offsft.storage.run_folder import RunFolder


class Score(EngineActor):
    """`map_batches` class: batches of REWRITE_SCHEMA in, batches of SCORE_SCHEMA out, row for row."""

    stage = "score"

    def __init__(self, spec: EngineSpec, responses: str) -> None:
        super().__init__(spec)
        self._expert = responses == "expert"

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self.map_rows(batch, self._row), schema=SCORE_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        ids = row["expert_ids"] if self._expert else row["response_ids"]
        logprobs = await self.sampler.score(row["prompt_ids"], ids) if ids else []
        if logprobs is None:
            raise EngineError("the engine cannot score, which the gap needs; set engine.kind=vllm")
        source = EXPERT if self._expert else row["source"]
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
    """Score the rewrites' kept or expert responses under `model`, resumably; writes SCORE_SCHEMA rows to `output`.

    Raises:
        ConfigError: the recipe's engine is remote, so it serves one fixed model.
        ModelError: the model tokenizes the rewrites' prompts differently from how they were written.
        EngineError: no engine could start.
    """
    if recipe.engine.kind == "remote":
        raise ConfigError(f"engine.kind=remote cannot score under {model}; set engine.kind=vllm for jobs.gap")
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
        lambda coordinator: (
            engine_spec(
                recipe,
                model=model,
                policy=side.model,
                raw_distribution=True,
                logs=folder.logs,
                quarantine=job.quarantine,
                coordinator=coordinator,
                sampler_factory=sampler_factory,
            ),
            side.responses,
        ),
        console,
    )


def _check_tokens(recipe: Recipe, model: str, rewrites: StoragePath) -> None:
    """Check that the tokenizer and prompt match the rewrites': otherwise log-ratios would be of different tokens."""
    columns = ["id", "problem", "solution", "answer", "prompt_ids"]
    row = dataset(rewrites).head(1, columns=columns).to_pylist()[0]
    revision = None if is_folder(model) else recipe.model.revision
    prompts = load_prompts(model, revision, recipe.prompt, recipe.model.thinking)
    if prompts.plain(Problem.from_row(row)) != row["prompt_ids"]:
        raise ModelError(
            f"{model} reads the prompts of {rewrites} as other tokens than they were written in: it has another"
            " tokenizer, or the recipe another prompt; log-ratios need the same tokens on both sides"
        )
