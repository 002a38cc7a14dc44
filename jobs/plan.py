"""python -m jobs.plan RECIPE.yaml [key=value ...]

Estimate the memory per GPU, the tokens and the hours that a recipe takes. Nothing is started. The assumptions are the
settings of `plan`, the formulas are in docs/planning.md. Exits with 1 if the recipe does not fit.
"""

from typing import TYPE_CHECKING

from .cli import run

if TYPE_CHECKING:
    from offsft.config import Recipe
    from offsft.runtime.console import Console


def work(recipe: "Recipe", console: "Console") -> None:
    from offsft.errors import ConfigError
    from offsft.plan import GIB, estimate

    found = estimate(recipe)
    plan, one, engine = recipe.plan, found.sampling, recipe.engine
    say = console.say
    say(f"model     {recipe.model.path}: {found.shape.parameters / 1e9:.2f} billion parameters")
    say(f"cluster   {plan.gpus} {plan.gpu} of {found.gpu.memory / GIB:.0f} GiB, {plan.gpus_per_node} on a node")
    say(
        f"sampling  {engine.actors} engines of {engine.gpus:g} GPU; each GPU: weights {one.weights / GIB:.1f} GiB,"
        f" cache {one.cache / GIB:.1f} GiB, {one.sequences} sequences at once, {one.tokens_per_s:,.0f} tokens/s an engine"
    )
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in found.training.parts.items())
    say(f"training  {recipe.train.workers} workers, each GPU {found.training.gpu / GIB:.1f} GiB: {parts}")
    if found.training.host:
        say(f"          and {found.training.host / GIB:.1f} GiB of main memory for each worker")
    say(f"loading   {found.training.loading / GIB:.1f} GiB of main memory for each worker")
    shares = ", ".join(f"{source} {share:.0%}" for source, share in found.shares.items())
    say(
        f"rewrite   {found.problems:,} problems ({shares}), {found.samples:,.0f} samples,"
        f" {found.sampled_tokens / 1e6:,.1f} million tokens: {found.rewrite_s / 3600:.2f} h"
    )
    say(f"train     {recipe.train.epochs} epochs: {found.train_s / 3600:.2f} h")
    say(
        f"evaluate  2 models, {recipe.evaluate.limit} problems, {recipe.evaluate.samples} samples each:"
        f" {found.evaluate_s / 3600:.2f} h"
    )
    assumed = plan.model_dump(exclude={"accept"}, exclude_none=True)
    assumed |= {f"accept.{stage}": share for stage, share in found.accept.items()}
    say("measured  nothing: these are estimates from arithmetic, not run on GPUs")
    say("assumed   " + ", ".join(f"{key}={value}" for key, value in assumed.items()))
    if found.misfits:
        raise ConfigError("does not fit: " + "; ".join(found.misfits))


if __name__ == "__main__":
    run(work, str(__doc__))
