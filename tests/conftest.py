"""Shared fixtures: a tiny model, one Ray, and a quiet console."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import time_budget

# pytest finds the hooks here.
from tests.programs import pytest_runtest_setup, pytest_terminal_summary  # noqa: F401
from tests.time_limit import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_runtest_teardown,
    pytest_testnodedown,
    pytest_timeout_set_timer,
)

# No time limit per example: on a busy machine a pause of a second is not a failure of the code.
settings.register_profile("offsft", deadline=None)
settings.load_profile("offsft")

# Ray lowers its workers' priority by default: next to any other load they would stand still.
os.environ.setdefault("RAY_worker_niceness", "0")
# Nor does a test's job use the workers that Ray starts before there is one; see offsft.runtime.session.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
# No test needs Ray's reports of its use, or its watch for machines that a cloud takes back: a process each, for every Ray
# and every training.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# Threads that wait for each other spin, by default: two engines or trainings at once then take each other's processor, and
# both are several times slower. Alone, an engine is a quarter slower this way.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(time_budget)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A random Llama of two layers with a byte-level tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # on such small tensors a test's threads would mostly wait for one another
    from benchmarks.byte_tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ray_session():
    """One local Ray for a file's tests. Its services take processor time also while idle."""
    import ray

    from offsft.runtime.session import start_ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    start_ray(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def console():
    from offsft.runtime.console import Console

    return Console()


@pytest.fixture(scope="session")
def s3_proxy():
    """moto's server with the bucket `bucket`, behind a proxy that can fail."""
    from moto.server import ThreadedMotoServer

    sys.path.insert(0, str(Path(__file__).parent))
    from s3_server import FaultyProxy

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultyProxy(f"http://{host}:{port}")
    yield proxy
    proxy.shutdown()
    server.stop()


@pytest.fixture
def s3(s3_proxy, monkeypatch) -> Iterator[str]:
    """An empty bucket's URL, with the environment set for it; requests go through `s3_proxy`."""
    import boto3

    from offsft.storage import s3 as clients

    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in {
        "AWS_ENDPOINT_URL": s3_proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(variable, value)
    clients.path_of("s3://bucket").fs.clear_instance_cache()  # a client keeps the variables that it was created with
    bucket = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    s3_proxy.told.clear()
    yield "s3://bucket"
    s3_proxy.share, s3_proxy.denied = 0.0, set()
    bucket.objects.all().delete()
    clients.path_of("s3://bucket").fs.clear_instance_cache()
