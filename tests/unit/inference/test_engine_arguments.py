"""vLLM's arguments from a recipe, in a batch job and under Ray Serve, without an engine."""

import json
import os

import pytest

from offsft.config import Recipe
from offsft.config.native import native_dtype
from offsft.errors import ConfigError, ModelError
from offsft.inference.engines import check_engine
from offsft.inference.engines import vllm as engine_module
from offsft.inference.engines.base import engine_setup
from offsft.inference.engines.vllm import engine_arguments, environment
from offsft.models import position_limit, scored_tokens
from offsft.runtime.placement import engine_bundles


def recipe(**engine):
    return Recipe.model_validate({"run": "runs/test", "seed": 3, "engine": engine})


def arguments(model, raw_distribution=True, **engine):
    return engine_arguments(engine_setup(recipe(**engine), str(model), raw_distribution=raw_distribution))


@pytest.fixture
def model(tmp_path):
    """A function that makes a folder with a model's configuration; its arguments change keys, None removes one."""

    def write(**config):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        tree = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096} | config
        (folder / "config.json").write_text(
            json.dumps({name: value for name, value in tree.items() if value is not None})
        )
        return str(folder)

    return write


def test_a_cpu_engine_does_not_compile_and_a_gpu_engine_takes_its_share(model):
    cpu, gpu = arguments(model()), arguments(model(), gpus=1, gpu_memory_share=0.5)
    assert cpu["enforce_eager"] is True
    assert "enforce_eager" not in gpu
    assert gpu["gpu_memory_utilization"] == 0.5
    assert (cpu["seed"], cpu["load_format"], cpu["dtype"]) == (3, "safetensors", native_dtype(gpus=False))


def test_an_engine_over_several_gpus_has_a_worker_and_a_bundle_for_each(model):
    settings = {"gpus": 4, "tensor_parallel": 4, "cpus": 2}
    told = arguments(model(), **settings)
    assert (told["tensor_parallel_size"], told["distributed_executor_backend"]) == (4, "ray")
    assert engine_bundles(recipe(**settings).engine) == [{"GPU": 1, "CPU": 2}, {"GPU": 1}, {"GPU": 1}, {"GPU": 1}]


@pytest.mark.parametrize(
    ("settings", "bundles"),
    [({"cpus": 2}, [{"CPU": 2}]), ({"gpus": 0.5}, [{"GPU": 0.5, "CPU": 1}]), ({"gpus": 1}, [{"GPU": 1, "CPU": 1}])],
)
def test_other_engines_lie_in_one_bundle(settings, bundles):
    assert engine_bundles(recipe(**settings).engine) == bundles


def test_log_probs_are_those_of_what_is_sampled_from(model):
    assert arguments(model())["logprobs_mode"] == "raw_logprobs"
    assert arguments(model(), raw_distribution=False)["logprobs_mode"] == "processed_logprobs"


def test_what_the_user_put_into_the_environment_stays(monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_CPU_NUM_OF_RESERVED_CPU", raising=False)
    variables = environment(recipe(kv_cache_gib=3.4).engine)
    assert variables["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert (variables["VLLM_CPU_NUM_OF_RESERVED_CPU"], variables["VLLM_CPU_KVCACHE_SPACE"]) == ("0", "3")
    assert not any("CPU" in name for name in environment(recipe(gpus=1).engine))


def test_further_arguments_go_through_to_vllm(model):
    told = arguments(model(), args={"quantization": "fp8", "enforce_eager": False})
    assert (told["quantization"], told["enforce_eager"]) == ("fp8", False)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("model", "model.path"),
        ("dtype", "model.dtype"),
        ("max_model_len", "model.context_tokens"),
        ("max_num_seqs", "engine.max_sequences"),
        ("seed", "seed"),
        ("gpu_memory_utilization", "engine.gpu_memory_share"),
        ("tensor_parallel_size", "engine.tensor_parallel"),
        ("logprobs_mode", "really sampled from"),
        ("hf_token", "HF_TOKEN"),
        ("pipeline_parallel_size", "engine.tensor_parallel"),
    ],
)
def test_what_the_recipe_says_elsewhere_is_refused_with_the_name_to_use(name, setting):
    with pytest.raises(ConfigError, match=rf"engine\.args\.{name}\b.*{setting}"):
        check_engine(recipe(args={name: 1}).engine)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quantisation", r"did you mean quantization\?"),
        ("--max-num-batched-tokens", r"did you mean max_num_batched_tokens\?"),
        ("tool_parser", r"did you mean tool_\w+\?"),
        ("xyzzy", r"vllm serve --help"),
    ],
)
def test_an_argument_that_vllm_does_not_know_is_refused(monkeypatch, name, hint):
    known = frozenset({"quantization", "max_num_batched_tokens", "tool_call_parser", "kv_cache_dtype"})
    monkeypatch.setattr(engine_module, "argument_names", lambda: known)
    with pytest.raises(ConfigError, match=hint):
        check_engine(recipe(args={"kv_cache_dtype": "fp8", name: 1}).engine)


def test_without_vllm_unknown_names_are_left_to_the_engine(monkeypatch):
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    check_engine(recipe(args={"xyzzy": 1}).engine)
    with pytest.raises(ConfigError, match=r"model\.dtype"):
        check_engine(recipe(args={"dtype": "half"}).engine)


def test_the_list_of_arguments_is_vllms_own_and_asking_leaves_this_process_alone():
    before = dict(os.environ)
    names = engine_module.argument_names()
    assert {"quantization", "kv_cache_dtype", "max_num_batched_tokens", "tool_call_parser", "reasoning_parser"} <= names
    assert engine_module._OWNED.keys() | engine_module._REFUSED.keys() <= names
    assert not any(name.startswith("_") for name in names)
    assert os.environ == before


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, 4096),
        ({"model_type": "gpt2", "max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, 16384),
        (
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "rope_theta": 1e4,
                    "original_max_position_embeddings": 1000,
                }
            },
            4000,
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "rope_theta": 1e4,
                    "original_max_position_embeddings": 512,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                }
            },
            4096,
        ),
        ({"model_max_length": 9000}, 9000),
        ({"model_type": "mamba", "max_position_embeddings": None}, None),
    ],
)
def test_a_models_positions_are_read_from_its_configuration(model, config, limit):
    assert position_limit(model(**config), None) == limit


def test_a_configuration_that_cannot_be_read_says_nothing(tmp_path):
    assert position_limit(str(tmp_path), None) is None
    for config in ('{"model_type": "of nobody"}', '{"model_type": "llama", "max_position_embeddings": "many"}', "{"):
        (tmp_path / "config.json").write_text(config)
        assert position_limit(str(tmp_path), None) is None


@pytest.mark.parametrize(("context", "engine", "row"), [(1000, 1001, 1000), (4095, 4096, 4095), (4096, 4096, 4095)])
def test_an_engine_is_never_longer_than_the_models_positions(model, context, engine, row):
    described = recipe().model_copy(update={"model": recipe().model.model_copy(update={"context_tokens": context})})
    setup = engine_setup(described, model(), raw_distribution=True)
    assert engine_arguments(setup)["max_model_len"] == engine
    assert scored_tokens(model(), None, context) == row


def test_a_context_beyond_the_models_positions_is_refused(model):
    with pytest.raises(ModelError, match=r"model\.context_tokens=4097 is beyond the 4096 positions"):
        scored_tokens(model(), None, 4097)
