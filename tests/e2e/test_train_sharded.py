"""Under ZeRO-3 no process holds a whole model, neither while loading nor while training."""

import os
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import multiprocessing

from offsft.config import TrainConfig
from offsft.train.batching import BatchPlan
from offsft.train.rows import Row

pytestmark = pytest.mark.e2e

RANKS = 2
ROWS = [Row(f"{i}", "self", [5, 6, 7 + i], [8, 9, 10, 11]) for i in range(4)]


def settings_of(stage, rank=0):
    return TrainConfig(zero_stage=stage, global_batch=4, learning_rate=1e-3, warmup=0, lora={"rank": rank})


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """A random Llama of about 400 MB in float32, without any layer that is a large part of it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("large")
    config = LlamaConfig(
        vocab_size=2000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=14,
        num_attention_heads=12,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def memory(name):
    """Memory of this process in bytes: `VmRSS` now, `VmHWM` at the peak, `RssAnon` without pages of mapped files."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(name))


def join(rank, out):
    os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=rank, world_size=RANKS)


def load(folder, settings):
    from transformers import AutoModelForCausalLM

    from offsft.train.engine import prepare_deepspeed
    from offsft.train.sharded import sharded_loading

    prepare_deepspeed(settings)
    with sharded_loading(settings, "float32"):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@contextmanager
def highest_own_memory():
    """A list whose last entry is, after the block, the process's peak of anonymous memory within it."""
    seen, done = [memory("RssAnon")], threading.Event()

    def watch():
        while not done.wait(0.005):
            seen.append(max(seen[-1], memory("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield seen
    done.set()
    watcher.join()


def measure(rank, folder, tiny, out):
    """The process's peak growth while loading the large model: in total, and in anonymous memory."""
    join(rank, out)
    load(tiny, settings_of(3))  # so that imports are not counted as the model's memory
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    before = memory("VmRSS")
    with highest_own_memory() as own:
        model = load(folder, settings_of(3))
    grown = {"peak": memory("VmHWM") - before, "own": own[-1] - own[0]}
    grown["whole"] = sum(4 * parameter.ds_numel for parameter in model.parameters())
    grown["shards"] = sum(4 * parameter.ds_tensor.numel() for parameter in model.parameters())
    torch.save(grown, f"{out}-{rank}")


def test_a_rank_never_holds_the_whole_model(large_model, tiny_model, tmp_path, monkeypatch):
    # Return freed memory to the system at once: else the allocator's behaviour is measured, which varies by run.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**20))
    out = str(tmp_path / "grown")
    multiprocessing.spawn(measure, (large_model, tiny_model, out), nprocs=RANKS)
    for rank in range(RANKS):
        grown = torch.load(f"{out}-{rank}", weights_only=False)
        assert grown["whole"] > 300e6
        assert grown["shards"] < 0.51 * grown["whole"]
        # Half of the weights, and one whole module.
        assert grown["own"] < 0.6 * grown["whole"], grown
        if rank:  # rank 0 maps the files that it distributes, and the system counts the pages that it has read
            assert grown["peak"] < 0.6 * grown["whole"], grown


def train(rank, folder, out):
    """Two steps on the model loaded whole and on the model loaded in shards, and the logits of each result."""
    join(rank, out)
    from transformers import AutoModelForCausalLM

    from offsft.train.engine import start_engine
    from offsft.train.export import gather_weights
    from offsft.train.worker import train_step

    seen = {}
    for adapters in (0, 2):
        for way in ("whole", "shards"):
            settings = settings_of(3, adapters)
            plan = BatchPlan([row.tokens for row in ROWS], 2, 64, RANKS, seed=0, epochs=1)
            torch.manual_seed(0)
            whole = way == "whole"
            model = AutoModelForCausalLM.from_pretrained(folder) if whole else load(folder, settings)
            torch.manual_seed(0)
            engine = start_engine(model, settings, "float32")
            steps = [train_step(engine, ROWS, plan, step, rank, settings)[0] for step in range(plan.steps)]
            weights = gather_weights(engine, zero3=True, rank=rank)
            seen[way, adapters] = [(sums.loss, sums.grad_norm) for sums in steps], weights
            engine.destroy()
    if rank == 0:
        torch.save(seen, out)
    torch.distributed.barrier()


def test_what_is_loaded_in_shards_trains_as_what_is_loaded_whole(tiny_model, tmp_path):
    out = str(tmp_path / "seen")
    multiprocessing.spawn(train, (tiny_model, out), nprocs=RANKS)
    seen = torch.load(out, weights_only=False)
    for adapters in (0, 2):
        (steps, weights), (want_steps, want) = seen["shards", adapters], seen["whole", adapters]
        assert weights.keys() == want.keys()
        if adapters:  # adapters are drawn again, in another order
            assert steps[0][0] == pytest.approx(want_steps[0][0], rel=1e-5)
            continue
        torch.testing.assert_close(torch.tensor(steps), torch.tensor(want_steps), rtol=1e-5, atol=0)
        for name, tensor in want.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
