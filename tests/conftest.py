"""What several tests share: a tiny model, one Ray, and a quiet console."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No time limit for an example: on a busy machine a pause of a second is no failure of the code.
settings.register_profile("offsft", deadline=None)
settings.load_profile("offsft")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A random Llama of two layers with a byte-level tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray for all tests that need one."""
    import ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    ray.init(
        address="local",
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
    from offsft.console import Console

    return Console()


@pytest.fixture(scope="session")
def s3_proxy():
    """moto's server behind a proxy that can fail; its bucket is `bucket`."""
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
    """An empty bucket's URL, with the variables set that lead to it; `s3_proxy` is what the requests go through."""
    import boto3

    from offsft import s3 as clients

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
    clients.path_of("s3://bucket").fs.clear_instance_cache()  # a client remembers the variables that it was made with
    bucket = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    s3_proxy.told.clear()
    yield "s3://bucket"
    s3_proxy.share, s3_proxy.denied = 0.0, set()
    bucket.objects.all().delete()
    clients.path_of("s3://bucket").fs.clear_instance_cache()
