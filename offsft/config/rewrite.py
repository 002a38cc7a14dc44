"""Settings of the cascade and of the engines that it runs on."""

from typing import Annotated, Literal

from pydantic import Field

from offsft.config.cluster import Label
from offsft.strict import Strict


class Rewrite(Strict):
    self_waves: list[Annotated[int, Field(ge=1)]] = [1, 1, 2, 4]
    """Samples in each wave of the self stage, which ends after the first wave with a correct one; `[8]` is a fixed n, `[]` skips the stage."""
    guided_waves: list[Annotated[int, Field(ge=1)]] = [1, 1, 2]
    """The same for the guided stage."""
    guided_min_share: float = Field(default=0.0, ge=0)
    """Shortest guided response that is kept, as a share of the expert solution's tokens: a shorter one is taken to state the answer it was shown without working it out; 0 keeps all."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest sampled response, in tokens."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; 1 samples the policy itself."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 samples the policy itself and is fastest."""
    pick: Literal["random", "shortest", "most_likely"] = "random"
    """Which of several correct responses of a wave is kept; `random` is seeded by the problem's id."""
    keep_text: bool = True
    """Keep the text of every attempt, for the report."""
    commit_problems: int = Field(default=16, ge=1)
    """Problems that are written together; a kill costs at most this many times `engine.concurrent_commits` a pool actor."""


class Engine(Strict):
    actors: int = Field(default=1, ge=1)
    """Engines in the pool, one vLLM engine each."""
    actors_max: int | None = Field(default=None, ge=1)
    """Engines that the pool may grow to while there is work for them and room in the cluster; unset: `actors`."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores that an engine's actor reserves with Ray."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of an engine; 0 runs it on the CPU."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs over which an engine spreads each layer's weights, for a model that is too large for one."""
    node_labels: dict[Label, Label] = {}
    """Labels that a node must have to run engines, for example `{group: spot}`; empty: any node."""
    max_sequences: int = Field(default=64, ge=1)
    """Sequences that an engine decodes at once."""
    kv_cache_gib: float = Field(default=2, gt=0)
    """Size of the key-value cache on a CPU, GiB."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that an engine takes."""
    concurrent_commits: int = Field(default=8, ge=1)
    """Groups of `rewrite.commit_problems` problems in work at once in an actor."""
    start_tries: int = Field(default=2, ge=1)
    """How often starting an engine is tried before the job gives up."""
    stall_s: float = Field(default=1800, gt=0)
    """An engine that answers nothing for so many seconds while it is asked is taken for dead, and another started."""
    poison_tries: int = Field(default=3, ge=1)
    """A problem goes to quarantine after its engine has died so often while it ran alone."""
    grace_s: float = Field(default=20, ge=0)
    """On SIGTERM or Ctrl-C, seconds in which problems in work may be finished and are written."""
