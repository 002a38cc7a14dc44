"""Ray Serve's configuration from a recipe: the engine's arguments, placement and environment. No engine starts."""

import asyncio
import json
import os

import pytest
from ray.serve.llm.deployment import LLMServer

from offsft.errors import ConfigError
from services.generator import EngineServer, llm_config
from services.settings import Generator

ROOT = "jobs/recipes"


def config_of(recipe, path="meta-llama/Llama-3.1-70B-Instruct", **more):
    return llm_config(Generator(name="base", path=path, recipe=str(recipe), **more))


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"run: runs/test\n{text}")
        return path

    return write


def test_an_engine_over_eight_gpus_gets_a_bundle_for_each_and_spreads_its_weights():
    config = config_of(f"{ROOT}/llama-3.1-70b.yaml")
    engine = config.get_engine_config()
    assert engine.num_devices == engine.tensor_parallel_degree == 8
    assert [bundle["GPU"] for bundle in engine.placement_bundles] == [1] * 8
    assert engine.placement_strategy == "PACK"
    told = engine.get_initialization_kwargs()
    assert (told["tensor_parallel_size"], told["distributed_executor_backend"]) == (8, "ray")
    assert told["gpu_memory_utilization"] == 0.9
    assert told["load_format"] == "safetensors"


def test_batch_and_serving_tell_vllm_the_same():
    from offsft.inference.engines.base import engine_setup
    from offsft.inference.engines.vllm import engine_arguments
    from services.settings import recipe_at

    for name in ("demo", "llama-3.1-70b", "llama-3.1-8b"):
        recipe, path = recipe_at(f"{ROOT}/{name}.yaml"), "some/model"
        batch = engine_arguments(engine_setup(recipe, path, raw_distribution=False), fetch=False)
        served = dict(config_of(f"{ROOT}/{name}.yaml", path).engine_kwargs)
        assert served.pop("override_generation_config") == {"max_new_tokens": 1024}
        assert served == batch


def test_a_cpu_engine_lies_in_one_bundle_and_does_not_compile():
    config = config_of(f"{ROOT}/demo.yaml", "embedded")
    assert config.get_engine_config().placement_bundles == [{"CPU": 1.0}]
    assert config.engine_kwargs["enforce_eager"] is True
    assert config.runtime_env["env_vars"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert config.accelerator_type is None


def test_engines_go_to_labelled_nodes_with_the_accelerator_that_is_named(recipe):
    labels = "{group: spot, ray.io/accelerator-type: H100}"
    config = config_of(recipe(f"engine: {{gpus: 2, tensor_parallel: 2, node_labels: {labels}}}"))
    wanted = {"group": "spot", "ray.io/accelerator-type": "H100"}
    assert config.deployment_config["placement_group_bundle_label_selector"] == [wanted]
    assert config.accelerator_type == "H100"
    with pytest.raises(ConfigError, match="generator base: Ray Serve refuses its engine: Unsupported accelerator type"):
        config_of(recipe("engine: {gpus: 1, node_labels: {ray.io/accelerator-type: abacus}}"))


def test_arguments_of_vllm_and_of_its_openai_server_go_through(recipe):
    args = "{quantization: fp8, tool_call_parser: hermes, enable_auto_tool_choice: true, override_generation_config: {top_k: 5}}"
    engine = config_of(recipe(f"engine: {{gpus: 1, args: {args}}}")).get_engine_config()
    assert engine.engine_kwargs["quantization"] == "fp8"
    assert engine.engine_kwargs["override_generation_config"] == {"max_new_tokens": 1024, "top_k": 5}
    assert engine.frontend_kwargs == {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("{dtype: half}", r"engine\.args\.dtype: .*model\.dtype"),
        ("{quantisation: fp8}", r"did you mean quantization\?"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_when_the_config_is_read(recipe, args, message):
    with pytest.raises(ConfigError, match=message):
        config_of(recipe(f"engine: {{args: {args}}}"))


def test_a_revision_is_passed_on_and_the_recipes_own_is_not(recipe):
    path = recipe("model: {revision: of-the-recipe}")
    assert config_of(path, revision="abc").engine_kwargs["revision"] == "abc"
    assert "revision" not in config_of(path).engine_kwargs


def test_a_model_that_is_somewhere_else_already_is_not_served(recipe):
    with pytest.raises(ConfigError, match=r"generator base: engine\.kind=remote of .* cannot be served"):
        config_of(recipe("engine: {kind: remote, remote: {model: m}}"))


@pytest.fixture
def started(monkeypatch):
    """A function that starts an engine server without its engine, and returns the config meant for the engine."""

    def start(config):
        async def keep(self, llm_config, **more):
            self.given = llm_config

        monkeypatch.setattr(LLMServer, "__init__", keep)
        server = object.__new__(EngineServer)
        asyncio.run(server.__init__(config))
        return server.given

    return start


def test_a_replica_bounds_the_engine_by_a_model_that_only_it_can_see(started, tmp_path, monkeypatch):
    config = config_of(f"{ROOT}/qwen2.5-math-7b.yaml", "some/model")
    assert config.engine_kwargs["max_model_len"] == 4097
    monkeypatch.setattr("services.generator.longest_sequence", lambda source, revision, tokens: min(tokens + 1, 4096))
    given = started(config)
    assert given.engine_kwargs["max_model_len"] == given.get_engine_config().engine_kwargs["max_model_len"] == 4096


@pytest.mark.parametrize(("recipe_name", "kept"), [("demo", False), ("qwen2.5-math-7b", True)])
def test_a_cpu_engine_has_the_threads_of_all_cores(started, monkeypatch, recipe_name, kept):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("services.generator.longest_sequence", lambda source, revision, tokens: tokens + 1)
    started(config_of(f"{ROOT}/{recipe_name}.yaml", "some/model"))
    assert ("OMP_NUM_THREADS" in os.environ) is kept


def test_a_model_whose_positions_end_with_the_context_is_served_within_them(tmp_path):
    model = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(model))
    assert config_of(f"{ROOT}/qwen2.5-math-7b.yaml", str(tmp_path)).engine_kwargs["max_model_len"] == 4096


def test_room_for_adapters_and_routing_by_prefix_are_settings():
    config = config_of(
        f"{ROOT}/demo.yaml", "embedded", adapters={"most": 8, "at_once": 2, "rank": 16}, route_by_prefix=True
    )
    assert config.lora_config.max_num_adapters_per_replica == 8
    told = {name: config.engine_kwargs[name] for name in ("enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank")}
    assert told == {"enable_lora": True, "max_loras": 2, "max_cpu_loras": 8, "max_lora_rank": 16}
    assert "lm_head" not in config.engine_kwargs["lora_target_modules"]
    assert config.deployment_config["request_router_config"]["request_router_class"].endswith(
        "PrefixCacheAffinityRouter"
    )
    plain = config_of(f"{ROOT}/demo.yaml", "embedded")
    assert plain.lora_config is None
    assert "enable_lora" not in plain.engine_kwargs
    assert "request_router_config" not in plain.deployment_config
