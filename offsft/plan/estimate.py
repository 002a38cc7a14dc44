"""A recipe's whole estimate: memory, tokens, hours, and what does not fit."""

from dataclasses import dataclass

from offsft.config import Recipe
from offsft.errors import ConfigError
from offsft.plan.hardware import GIB, GPUS, Gpu
from offsft.plan.sampling import Sampling, cascade_of, sampling
from offsft.plan.shape import Shape, shape_of
from offsft.plan.training import Training, train_seconds, training


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Everything that `jobs.plan` prints. Times in seconds; `misfits` says what does not fit, and what to do."""

    shape: Shape
    gpu: Gpu
    sampling: Sampling
    training: Training
    problems: int
    samples: float
    sampled_tokens: float
    accept: dict[str, float]
    """Share of samples kept, by stage."""
    shares: dict[str, float]
    """Share of problems by the stage that gives the response, in order; the last are demonstrations or left out."""
    rewrite_s: float
    train_s: float
    evaluate_s: float
    misfits: list[str]


def estimate(recipe: Recipe) -> CostEstimate:
    """Estimate a recipe on the cluster in its section `plan`.

    Raises:
        ConfigError: the model's shape or the number of problems is unknown, or the recipe uses no GPUs.
    """
    plan, engine, train = recipe.plan, recipe.engine, recipe.train
    if not engine.gpus or not train.gpus_per_worker:
        raise ConfigError("jobs.plan is about GPUs; set engine.gpus and train.gpus_per_worker to 1 or more")
    shape, gpu = shape_of(recipe.model.path), GPUS[plan.gpu]
    width = 2 if recipe.model.dtype == "bfloat16" else 4
    problems = _problems(recipe)
    one = sampling(shape, gpu, engine, plan, recipe.model.context_tokens, width)
    cascade = cascade_of(recipe)
    samples = problems * cascade.samples
    tokens = samples * plan.response_tokens
    memory = training(shape, train, recipe.model.dtype)
    rate = one.tokens_per_s * engine.actors
    # Each problem's expert solution is scored once, and so is a response kept from another prompt: a prefill each.
    scored = problems * (1 + cascade.scored) * (plan.prompt_tokens + plan.response_tokens)
    score_s = 2 * shape.active_parameters * scored / (engine.actors * engine.gpus * gpu.flops * plan.compute_share)
    answers = 2 * _count_held_out(recipe) * recipe.evaluate.samples * plan.response_tokens
    return CostEstimate(
        shape=shape,
        gpu=gpu,
        sampling=one,
        training=memory,
        problems=problems,
        samples=samples,
        sampled_tokens=tokens,
        accept=cascade.accept,
        shares=cascade.shares,
        rewrite_s=tokens / rate + score_s if rate else float("inf"),
        train_s=train_seconds(shape, gpu, train, plan, problems),
        evaluate_s=answers / rate if rate else float("inf"),
        misfits=_misfits(recipe, gpu, one, memory),
    )


def _problems(recipe: Recipe) -> int:
    generated = recipe.data.generated_problems if recipe.data.path == "generated" else None
    problems = recipe.plan.problems or recipe.data.limit or generated
    if problems is None:
        raise ConfigError("how many problems there are is not known; set plan.problems")
    return problems


def _count_held_out(recipe: Recipe) -> int:
    """Problems of the evaluation, over all suites."""
    settings = recipe.evaluate
    generated = settings.generated_problems if settings.path == "generated" and not settings.suites else None
    limited = settings.limit and settings.limit * max(1, len(settings.suites))
    problems = recipe.plan.held_out_problems or limited or generated
    if problems is None:
        raise ConfigError("how many problems the evaluation has is not known; set plan.held_out_problems")
    return problems


def _misfits(recipe: Recipe, gpu: Gpu, one: Sampling, memory: Training) -> list[str]:
    plan, engine, train = recipe.plan, recipe.engine, recipe.train
    workers = min(train.workers, plan.gpus_per_node)
    host, loading = memory.host * workers, memory.loading * workers
    found = [
        (
            one.sequences == 0,
            f"an engine has no room for one sequence of model.context_tokens={recipe.model.context_tokens}: its weights take"
            f" {one.weights / GIB:.0f} GiB of each GPU's {gpu.memory / GIB:.0f}; raise engine.gpus, or lower the context",
        ),
        (
            memory.gpu > gpu.memory,
            f"training needs {memory.gpu / GIB:.0f} GiB of each GPU's {gpu.memory / GIB:.0f}; the largest part is"
            f" {max(memory.parts, key=lambda part: memory.parts[part])}: raise train.zero_stage, train.workers or train.offload,"
            " set train.gradient_checkpointing=true, or lower train.micro_batch_tokens",
        ),
        (
            host > plan.node_memory_gib * GIB,
            f"what training offloads takes {host / GIB:.0f} GiB of a node's plan.node_memory_gib={plan.node_memory_gib:g};"
            " raise train.workers, or train.offload=optimizer",
        ),
        (
            loading > plan.node_memory_gib * GIB,
            f"while loading, the workers of a node hold {loading / GIB:.0f} GiB of its plan.node_memory_gib="
            f"{plan.node_memory_gib:g}: each has the whole model below train.zero_stage=3; set that",
        ),
        (
            engine.actors * engine.gpus > plan.gpus,
            f"engine.actors={engine.actors} of engine.gpus={engine.gpus:g} are more than plan.gpus={plan.gpus}",
        ),
        (
            train.workers * train.gpus_per_worker > plan.gpus,
            f"train.workers={train.workers} of train.gpus_per_worker={train.gpus_per_worker:g} are more than"
            f" plan.gpus={plan.gpus}",
        ),
    ]
    return [message for wrong, message in found if wrong]
