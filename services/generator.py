"""The Serve application of one model: a ray.serve.llm engine without an HTTP route, called by handle."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import ValidationError
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from offsft.errors import ConfigError, EngineError
from offsft.inference.engines import check_engine
from offsft.inference.engines.base import engine_setup
from offsft.inference.engines.serve import WholeAnswer
from offsft.inference.engines.vllm import engine_arguments, environment, use_all_cores
from offsft.models import longest_sequence
from offsft.runtime.compiled_code import prepare_compiling
from offsft.runtime.placement import engine_bundles

from .adapters import ADAPTER, LocalAdapters
from .refusals import refusal, refuse_tools
from .scoring import join, split
from .settings import Generator, model_folder, recipe_at, validate

_HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 30.0, "graceful_shutdown_timeout_s": 150.0}
"""A dead engine is noticed within three periods; a replica that shuts down first finishes its running requests."""
_ACCELERATOR = "ray.io/accelerator-type"
"""The label that Ray gives to nodes with GPUs."""
_BY_PREFIX = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
"""Sends prompts that begin alike to the replica that has their beginning in its cache, unless it has much more to do."""


class EngineServer(LLMServer):
    """ray.serve.llm's server, with vLLM's threads on all cores and complete answers in one message."""

    async def __init__(self, llm_config: LLMConfig) -> None:
        arguments: dict[str, Any] = llm_config.engine_kwargs
        loading: Any = llm_config.model_loading_config
        if "gpu_memory_utilization" not in arguments:
            use_all_cores()
        prepare_compiling(gpus="gpu_memory_utilization" in arguments)
        # The process that read the config downloads no model; this one is about to.
        longest = await asyncio.to_thread(
            longest_sequence, loading.model_source, arguments.get("revision"), arguments["max_model_len"] - 1
        )
        llm_config.update_engine_kwargs(max_model_len=longest)
        await super().__init__(llm_config, model_downloader=LocalAdapters)
        engine: Any = getattr(self, "engine", None)
        if engine is not None and engine._oai_serving_tokenization is None:
            # Ray 2.60 looks for it under the name that it had in an earlier vLLM.
            engine._oai_serving_tokenization = engine._app_state.serving_tokenization

    async def whole(self, route: str, request: Any, *_: Any) -> WholeAnswer:
        """Answer a request that does not stream, as JSON made here; `route` is the method that answers it.

        ray.serve.llm's own methods answer with a stream of objects, which every hop would build again.
        """
        answer: Any
        try:
            answer = await self._answer(route, request)
        except Exception as error:  # whatever it is, only its answer can be sent between processes
            answer = refusal(error, id_of(request))
        if hasattr(answer, "error") and answer.error is not None:
            return WholeAnswer(answer.error.code, answer.error.message, answer.error.type, answer.error.param)
        return WholeAnswer(200, answer.model_dump_json(by_alias=True), "", None, *tokens_of(answer))

    async def events(self, route: str, request: Any, *_: Any) -> AsyncGenerator[list[Any], None]:
        """Answer a streaming request: pieces of server-sent events, or an error in their place."""
        try:
            async for batch in await getattr(self, route)(request):
                yield batch if isinstance(batch, list) else [batch]
        except Exception as error:  # as above
            yield [refusal(error, id_of(request))]

    async def _answer(self, route: str, request: Any) -> Any:
        parts = split(request) if route in ("chat", "completions") else None
        if parts is None:
            (answer,) = [answer async for answer in await getattr(self, route)(request)]
            return answer
        prompt, samples = await asyncio.gather(*(self._answer(route, part) for part in parts))
        failed = next((answer for answer in (prompt, samples) if hasattr(answer, "error")), None)
        return failed or join(prompt, samples, request)

    async def responses(self, fields: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """OpenAI's responses, by vLLM's own code for them; `fields` are the request's."""
        request = ResponsesRequest.model_validate(fields)
        await self._before(request)
        engine: Any = self.engine
        answer: Any = await engine._app_state.openai_serving_responses.create_responses(request)

        async def each() -> AsyncGenerator[Any, None]:
            if not hasattr(answer, "__aiter__"):
                yield answer
                return
            async for event in answer:
                yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"

        return each()

    async def _run_request(self, request: Any, **more: Any) -> Any:
        await self._before(request)
        return await super()._run_request(request, **more)

    async def _before(self, request: Any) -> None:
        """Load the adapter that a request brings, and refuse what this engine's settings leave out."""
        folder = (request.model_extra or {}).pop(ADAPTER, None)
        if folder is not None:
            LocalAdapters.folders[request.model] = folder
            try:
                await self._maybe_resolve_lora_from_multiplex()
            except ValueError as error:
                raise EngineError(f"{request.model}: {error}") from error
        options: Any = self._llm_config.get_engine_config()
        if getattr(request, "tools", None) and getattr(request, "tool_choice", "auto") not in (None, "none"):
            refuse_tools(options.frontend_kwargs)


def id_of(request: Any) -> str:
    """The id of a request, which is an object of its route, or the fields of one; tokenizing has none."""
    return str(request.get("request_id") if isinstance(request, dict) else getattr(request, "request_id", "tokenize"))


def tokens_of(answer: Any) -> tuple[int, int]:
    """Prompt and completion tokens of an answer, which the routes name differently."""
    usage = getattr(answer, "usage", None)
    prompt = getattr(usage, "prompt_tokens", None) or getattr(usage, "input_tokens", None) or 0
    return prompt, getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None) or 0


def deployment_name(model: str) -> str:
    """Name of the deployment within a model's application."""
    return f"{EngineServer.__name__}:{model.replace('.', '_')}"


def application(args: dict[str, Any]) -> Application:
    """`import_path` of a Serve config; `args` are a `services.settings.Generator`."""
    return build_llm_deployment(llm_config(validate(Generator, args, "generator")))


def llm_config(settings: Generator) -> LLMConfig:
    """The configuration for ray.serve.llm: the engine that the batch job would start for the same recipe.

    Raises:
        ConfigError: the recipe's engine cannot be served, or not with these settings.
        ModelError: there is no such model, or it is too short for `model.context_tokens`.
    """
    recipe = recipe_at(settings.recipe)
    engine = recipe.engine
    if engine.kind != "vllm":
        raise ConfigError(
            f"generator {settings.name}: engine.kind={engine.kind} of {settings.recipe} cannot be served; only vllm can"
        )
    check_engine(engine)
    # Clients may set any temperature: log-probs are those of the distribution that was sampled from.
    model = recipe.model.model_copy(update={"revision": settings.revision})
    described = recipe.model_copy(update={"model": model})
    setup = engine_setup(described, model_folder(settings.path), raw_distribution=False)
    arguments = engine_arguments(setup, fetch=False)
    # The default where a request sets no length.
    generation = {"max_new_tokens": settings.max_tokens} | arguments.pop("override_generation_config", {})
    bundles = engine_bundles(engine)
    places = {"placement_group_bundle_label_selector": [dict(engine.node_labels)]} if engine.node_labels else {}
    router = {"request_router_config": {"request_router_class": _BY_PREFIX}} if settings.route_by_prefix else {}
    lora = settings.adapters
    if lora is not None:
        arguments |= {"enable_lora": True, "max_loras": lora.at_once, "max_lora_rank": lora.rank}
        arguments |= {"max_cpu_loras": max(lora.at_once, lora.most), "lora_target_modules": lora.targets}
    try:
        return LLMConfig(
            model_loading_config={"model_id": settings.name, "model_source": setup.model},
            server_cls=EngineServer,
            engine_kwargs={**arguments, "override_generation_config": generation},
            accelerator_type=engine.node_labels.get(_ACCELERATOR) if engine.gpus else None,
            placement_group_config={"bundles": bundles, "strategy": "PACK"},
            # The bundles above are the replica's and include the engine's processes.
            deployment_config={
                "ray_actor_options": {"num_cpus": 0},
                **_HEALTH,
                **places,
                **router,
                **settings.deployment,
            },
            lora_config=None if lora is None else {"max_num_adapters_per_replica": lora.most},
            runtime_env={"env_vars": environment(engine)},
        )
    except ValidationError as error:
        reasons = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise ConfigError(f"generator {settings.name}: Ray Serve refuses its engine: {reasons}") from None
