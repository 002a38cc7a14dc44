"""On a machine without GPUs, training compiles nothing, and sampling works without a compiler."""

import fnmatch
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.test_train_driver import ROOT, ended, first_steps, prepare, start

pytestmark = pytest.mark.e2e

COMPILERS = ("*gcc*", "*g++*", "*c++*", "cc", "c89*", "c99*", "cpp*", "*clang*", "nvcc", "ninja", "cmake", "make")
CACHES = ("TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT")

ENGINE = """
import asyncio, os, signal, sys
from offsft.config import EngineConfig
from offsft.inference.engines.base import EngineSetup
from offsft.inference.engines.vllm import VllmSampler
from offsft.protocols import SamplingParams

async def work(sampler):
    (completion, _) = await sampler.sample([1, 2, 3], n=2, params=SamplingParams(max_tokens=8))
    print("LENGTHS", len(completion.logprobs), len(await sampler.score([1, 2, 3], [*range(4, 60)])))

if __name__ == "__main__":
    engine = EngineConfig(max_sequences=4, kv_cache_gib=0.5)
    sampler = VllmSampler(EngineSetup(sys.argv[1], None, "float32", False, 128, 0, True, engine), ())
    asyncio.run(work(sampler))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """A folder for all compiled files, on a machine without a compiler."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).glob("*"):
            if not any(fnmatch.fnmatch(program.name, name) for name in COMPILERS):
                (programs / program.name).unlink(missing_ok=True)
                (programs / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name in CACHES:
        monkeypatch.setenv(name, str(tmp_path / "caches" / name))
    return tmp_path / "caches"


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_training_needs_no_compiler_and_compiles_nothing(tiny_model, tmp_path, caches):
    prepare(tmp_path / "run")
    job = start(tmp_path / "run", tiny_model)
    status, printed = ended(job)
    assert status == 0, printed
    assert first_steps(tmp_path / "run") == ["1"]
    assert files_in(caches) == []


@pytest.fixture
def model(tiny_model, tmp_path) -> str:
    """The tiny model with larger heads: vLLM's attention on CPUs needs 32 or more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    sizes = {"hidden_size": 128, "head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model, **sizes)).save_pretrained(folder)
    return str(folder)


def test_an_engine_on_a_cpu_samples_and_scores_without_a_compiler(model, tmp_path, caches):
    script = tmp_path / "engine.py"  # a file, since vLLM starts its processes from it again
    script.write_text(ENGINE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script, model], capture_output=True, text=True, env=environment)
    assert "LENGTHS 8 56" in done.stdout, done.stderr
    assert "nothing can be compiled here" in done.stderr
    assert not [name for name in files_in(caches) if not name.endswith(".json")]
    wait_until_no_process_has(f"PYTHONPATH={ROOT}", f"VLLM_CACHE_ROOT={caches / 'VLLM_CACHE_ROOT'}")


def wait_until_no_process_has(*variables):
    """Wait until the engine, whose owner killed itself, has ended: no process has these variables any more."""
    end_s = time.monotonic() + 60
    while left := [process for process in psutil.process_iter() if has(process, variables)]:
        assert time.monotonic() < end_s, f"the engine outlived its owner: {left}"
        time.sleep(0.5)


def has(process, variables):
    try:
        held = process.environ()
    except psutil.Error:
        return False
    return process.pid != os.getpid() and all(
        held.get(name) == value for name, _, value in (v.partition("=") for v in variables)
    )
