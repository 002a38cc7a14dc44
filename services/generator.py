"""The Serve application of one model: a ray.serve.llm engine without a route of its own; the gateway calls it by handle."""

import os
from typing import Any

from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer

from offsft.config import Generator
from offsft.sampling.handle import Whole
from services.settings import checked, model_folder, recipe_at

_HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 30.0, "graceful_shutdown_timeout_s": 150.0}
"""A dead engine is noticed within three periods; a replica that goes finishes what it has in work."""


class Engine(LLMServer):
    """ray.serve.llm's server with vLLM's threads on all cores, and with whole answers in one message."""

    async def __init__(self, llm_config: LLMConfig) -> None:
        # Ray sets this to the CPUs that the replica reserves; vLLM binds its own threads to cores.
        os.environ.pop("OMP_NUM_THREADS", None)
        await super().__init__(llm_config)

    async def whole(self, route: str, request: Any) -> Whole:
        """The answer to a request without a stream, written as JSON here; `route` is `chat` or `completions`.

        ray.serve.llm's own methods answer through a stream of objects, and every hop would build them anew.
        """
        (answer,) = [answer async for answer in await getattr(self, route)(request)]
        if hasattr(answer, "error"):
            return Whole(answer.error.code, answer.error.message, answer.error.type)
        usage = answer.usage
        return Whole(200, answer.model_dump_json(), "", usage.prompt_tokens, usage.completion_tokens or 0)


def deployment_name(model: str) -> str:
    """Name of the deployment within a model's application."""
    return f"{Engine.__name__}:{model.replace('.', '_')}"


def application(args: dict[str, Any]) -> Application:
    """`import_path` of a Serve config; `args` are an `offsft.config.Generator`."""
    settings = checked(Generator, args, "generator")
    recipe = recipe_at(settings.recipe)
    engine = recipe.engine
    environment = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    options: dict[str, Any] = {
        "dtype": recipe.model.dtype,
        # One token more than the longest row, since scoring a full row samples one token after it.
        "max_model_len": recipe.model.context_tokens + 1,
        "max_num_seqs": engine.max_sequences,
        "seed": recipe.seed,
        "load_format": "auto" if recipe.model.pickled_weights else "safetensors",
        "logprobs_mode": "processed_logprobs",
        "override_generation_config": {"max_new_tokens": settings.max_tokens},
    }
    if settings.revision is not None:
        options["revision"] = settings.revision
    if engine.gpus:
        options["gpu_memory_utilization"] = engine.gpu_memory_share
        bundle = {"GPU": engine.gpus, "CPU": engine.cpus}
    else:
        bundle = {"CPU": engine.cpus}
        options["enforce_eager"] = True  # compilation gains 15 % on a CPU and costs over a minute at each start
        environment |= {
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(engine.kv_cache_gib))),
        }
    return build_llm_deployment(
        LLMConfig(
            model_loading_config={"model_id": settings.name, "model_source": model_folder(settings.path)},
            server_cls=Engine,
            engine_kwargs=options,
            placement_group_config={"bundles": [bundle]},
            # The bundle above is the replica's: the engine's process counts with it.
            deployment_config={"ray_actor_options": {"num_cpus": 0}, **_HEALTH, **settings.deployment},
            runtime_env={"env_vars": environment},
        )
    )
