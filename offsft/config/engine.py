"""Settings of the engines."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from offsft.config.base import Affects, Strict, refuse
from offsft.config.cluster import Label

_PROBLEMS_PER_SEQUENCE = 3
_FEWEST_COMMITS, _MOST_COMMITS = 8, 64


class RemoteConfig(Strict):
    """A model served by an OpenAI-compatible API."""

    url: str = Field(default="http://127.0.0.1:8000/v1", pattern=r"^https?://\S+$")
    """Address of the server, with its `/v1`."""
    model: Annotated[str | None, Affects("rewrite")] = None
    """Name of the model on that server; needed with `engine.kind=remote`. `model.path` must name the same model: its tokenizer makes the prompts."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key on the nodes that run engines; the key itself is never a setting. If it is unset, no key is sent."""
    vllm_extensions: bool = True
    """Whether the server supports the extensions of vLLM and offsft's own server: it returns token ids and scores rows. Without them, texts are tokenised again, and there are no log-probs."""
    prompts: Literal["ids", "text"] = "ids"
    """How prompts are sent: as token ids, or as text if the server accepts no ids (it must not add tokens)."""
    logprobs: Literal["raw", "processed", "none"] = "raw"
    """Distribution of the server's log-probs: the model's (`raw`, vLLM's default), the one after temperature and top-p (`processed`, offsft's own server), or `none` to request none. Raw ones are kept only at temperature 1 and top-p 1, where both are the same."""
    concurrency: int = Field(default=32, ge=1)
    """Concurrent requests per engine."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Rate limit over all engines together, requests per minute, retries included; unset: no limit."""
    tries: int = Field(default=8, ge=1)
    """Attempts per request if the server is busy (429), fails (5xx), cannot be reached or returns an invalid answer; waits double from half a second to a minute."""
    timeout_s: float = Field(default=300, gt=0)
    """Longest wait for one answer, seconds."""
    prompt_price: float = Field(default=0, ge=0)
    """Price per million prompt tokens, in any currency; the run's cost is computed from it."""
    completion_price: float = Field(default=0, ge=0)
    """Price per million sampled tokens."""


class EngineConfig(Strict):
    kind: Literal["vllm", "remote"] = "vllm"
    """Kind of engine: `vllm`, an engine in the cluster, or `remote`, a model served by an OpenAI-compatible API (docs/engines.md)."""
    actors: int = Field(default=1, ge=1)
    """Engines in the pool, one vLLM engine each."""
    actors_max: int | None = Field(default=None, ge=1)
    """Largest size of the pool, which grows while there is work and room in the cluster; unset: `actors`."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores that an engine's actor reserves with Ray."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per engine; 0 runs it on the CPU."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs over which an engine shards each layer's weights, for a model that is too large for one."""
    node_labels: dict[Label, Label] = {}
    """Labels that a node must have to run engines, for example `{group: spot}`; empty: any node."""
    max_sequences: int = Field(default=64, ge=1)
    """Sequences that an engine decodes at once."""
    kv_cache_gib: float = Field(default=2, gt=0)
    """Size of the key-value cache on a CPU, GiB."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that an engine takes."""
    concurrent_commits: int | None = Field(default=None, ge=1)
    """Groups of `rewrite.commit_problems` problems in progress at once per actor; unset: 8 to 64, so that there are three problems for each of `max_sequences`."""
    start_tries: int = Field(default=2, ge=1)
    """Attempts to start an engine before the job gives up."""
    stall_s: float = Field(default=1800, gt=0)
    """Seconds without an answer to a request after which an engine is considered dead and replaced."""
    poison_tries: int = Field(default=3, ge=1)
    """Engine deaths, each while a problem ran alone, after which that problem goes to quarantine."""
    grace_s: float = Field(default=20, ge=0)
    """Seconds after SIGTERM or Ctrl-C in which problems in progress may finish and are written."""
    args: Annotated[dict[str, Any], Affects("rewrite", "evaluate")] = {}
    """Further vLLM arguments by vLLM's names, for example `{quantization: fp8}` (docs/engines.md); an unknown one is refused before an engine starts."""
    remote: RemoteConfig = RemoteConfig()

    @model_validator(mode="after")
    def _possible(self) -> "EngineConfig":
        is_remote = self.kind == "remote"
        local = ", ".join(f"engine.{name}" for name, is_set in (("gpus", self.gpus), ("args", self.args)) if is_set)
        refuse(
            [
                (
                    is_remote and not self.remote.model,
                    "engine.kind=remote needs engine.remote.model: the model's name on its server",
                ),
                (
                    is_remote and bool(local),
                    f"engine.kind=remote starts no engine in the cluster, so it has no use for {local}; leave it out",
                ),
                (
                    (self.tensor_parallel > 1 or self.gpus > 1) and self.gpus != self.tensor_parallel,
                    f"engine.gpus={self.gpus:g} does not go with engine.tensor_parallel={self.tensor_parallel}: an engine"
                    " spreads over all of its GPUs; give both the same number",
                ),
                (
                    self.actors_max is not None and self.actors_max < self.actors,
                    f"engine.actors_max={self.actors_max} is below engine.actors={self.actors}; raise it, or leave it out",
                ),
            ]
        )
        return self

    def commits_in_progress(self, commit_problems: int) -> int:
        """Groups of problems in progress at once per actor.

        A group is written when its slowest problem is done. Until then the others' places in the engine's batch must be
        taken by other groups' problems.
        """
        if self.concurrent_commits is not None:
            return self.concurrent_commits
        enough = -(-_PROBLEMS_PER_SEQUENCE * self.max_sequences // commit_problems)
        return min(max(enough, _FEWEST_COMMITS), _MOST_COMMITS)

    def gives_logprobs(self, *, on_policy: bool) -> bool:
        """Whether samples come with their log-probs; `on_policy` means at temperature 1 and top-p 1."""
        remote = self.remote
        held = remote.logprobs == "processed" or (remote.logprobs == "raw" and on_policy)
        return self.kind != "remote" or (remote.vllm_extensions and held)
