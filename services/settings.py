"""Settings of the HTTP services: the validated arguments of each application, and the paths of recipes and models."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from offsft.config import ModelConfig, Recipe
from offsft.config.base import PathText, Strict, expand_home
from offsft.config.loading import load
from offsft.errors import ConfigError
from offsft.models import resolve_model

ROOT = Path(__file__).resolve().parent.parent
"""The repository, or the installed package; both contain `jobs/recipes/`."""


class Limits(Strict):
    """Limits per request, per key and per gateway replica."""

    body_bytes: int = Field(default=2**20, ge=1024)
    """Largest request body, bytes, compressed and not; a larger one gets 413."""
    body_s: float = Field(default=30, gt=0)
    """Longest time for a request's body to arrive, seconds; a slower one gets 408."""
    problem_tokens: int = Field(default=2048, ge=1)
    """Longest problem, tokens; a longer one gets 422."""
    solution_tokens: int = Field(default=4096, ge=1)
    """Longest expert solution, tokens; a longer one gets 422."""
    samples: int = Field(default=16, ge=1)
    """Most samples per request: `n` times the prompts on an OpenAI route, the sum of a rewrite's waves; else 422."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest response that an OpenAI request may ask for, tokens; a longer one gets 422."""
    scored_tokens: int = Field(default=32_768, ge=1)
    """Most prompt tokens per request whose log-probs are computed (`echo` with `logprobs`, `prompt_logprobs`); more gets 422."""
    logprobs: int = Field(default=65_536, ge=1)
    """Most log-probs in an answer: tokens times alternatives, over all choices; more gets 422."""
    grammar_bytes: int = Field(default=65_536, ge=1)
    """Largest schema, grammar or list of tools that an answer is held to, bytes of JSON; a larger one gets 422."""
    batch_problems: int = Field(default=32, ge=1)
    """Most problems per batch; more gets 422."""
    batch_at_once: int = Field(default=4, ge=1)
    """Problems of one batch that run at once."""
    requests_per_minute: float = Field(default=600, gt=0)
    """Sustained requests per minute to /v1 per key; more gets 429. Each gateway replica counts separately."""
    burst: int = Field(default=100, ge=1)
    """Burst: requests that an idle key may send at once."""
    active: int = Field(default=64, ge=1)
    """Sequences in work at once, per model and gateway replica; a request of `n` samples takes `n` of these places."""
    key_share: float = Field(default=0.75, gt=0, le=1)
    """Largest share of a model's places that one key may hold, so that others find free ones at once. Without keys it has no effect."""
    queued: int = Field(default=64, ge=0)
    """Sampling requests that may wait in a model's queue; a further one gets 503 at once, or that of the key that waits with most."""
    comment_s: float = Field(default=15, gt=0)
    """Time after which a stream without an event sends a comment as a sign of life, seconds; until then it may still be refused by its status."""
    retry_after_s: int = Field(default=2, ge=1)
    """The value of `Retry-After` when the queue is full or an engine is restarting, seconds."""
    deadline_s: float = Field(default=120, gt=0)
    """Longest time from a sampling request's arrival to its end, waiting included, seconds; a longer one gets 504."""


class Serving(Strict):
    """Arguments of the gateway."""

    recipe: PathText = Field(min_length=1)
    """Recipe whose `prompt`, `rewrite`, `verify` and `model.context_tokens` POST /v1/rewrite uses, as the batch job does; relative to the repository."""
    limits: Limits = Limits()
    keys_file: PathText | None = None
    """File of API keys, one `name: key` per line, reloaded when it changes; unset: those in OFFSFT_API_KEYS, if any."""
    key_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Weights of keys, by name, in the queue of a model: of two that wait, one of weight 2 gets twice the tokens; others have 1."""
    cors_origins: list[str] = []
    """Origins whose pages may call from a browser, such as `https://chat.example.org`, or `*`; empty: none."""
    access_log: PathText | None = None
    """File that the access log (JSON lines) is appended to; unset: the replica's log in Ray's session folder."""
    ready_timeout_s: float = Field(default=10, gt=0)
    """Time for which GET /readyz waits for a token from each model, seconds."""


class ServedModel(Strict):
    """A model to which the gateway forwards requests."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """Name by which clients request it."""
    path: PathText = Field(min_length=1)
    """As `model.path`; the tokenizer is read from there."""
    revision: str | None = None
    """As `model.revision`, for a Hugging Face name; a folder's revision is the fingerprint of its files."""
    application: str = Field(min_length=1)
    """Serve application that holds the model's engine."""
    adapter: PathText | None = None
    """Folder of a LoRA adapter in peft's format, on every node that runs the engine; it is loaded when it is first asked for."""
    base: str | None = None
    """For an adapter: the served model on whose engine it is; `path`, `revision` and `application` are as there."""


class Routing(Strict):
    """The gateway's `user_config`: the served models. Changing it needs no restart."""

    default: str
    """Model for requests that name none."""
    models: list[ServedModel] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Routing":
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ConfigError(f"the served models {', '.join(names)} need different names")
        if self.default not in names:
            raise ConfigError(f"default={self.default} is none of the served models {', '.join(names)}")
        bases = {model.name: model.application for model in self.models if model.adapter is None}
        for model in self.models:
            if model.adapter is not None and bases.get(model.base or "") != model.application:
                raise ConfigError(
                    f"the adapter {model.name} needs base and application of a served model: {', '.join(bases)}"
                )
        return self


LINEAR_LAYERS = [
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("qkv_proj", "gate_up_proj", "query_key_value", "c_attn", "c_proj", "c_fc", "out_proj"),
    *("dense", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2"),
]
"""Linear layers of common families (Llama, Qwen, Gemma, Mistral, Phi, GPT-2, GPT-NeoX, OPT)."""


class Adapters(Strict):
    """Room for LoRA adapters on a model's engine."""

    most: int = Field(default=16, ge=1)
    """Most adapters that a replica keeps loaded; of more, the one that was used longest ago goes."""
    at_once: int = Field(default=4, ge=1)
    """Most adapters in one batch of the engine."""
    rank: int = Field(default=64, ge=1)
    """Largest rank of an adapter (`train.lora.rank`)."""
    targets: list[str] = Field(default=LINEAR_LAYERS, min_length=1)
    """Names of the layers that adapters may change, as they end in the model. Without the head: where it has an adapter, vLLM 0.29 ends an engine that is asked for a prompt's log-probs."""


class Generator(Strict):
    """Arguments of an application that holds one model's engine."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """As the gateway's `models.name`."""
    path: PathText = Field(min_length=1)
    """As `model.path`; a folder must exist on every node that may run the engine."""
    revision: str | None = None
    """As `model.revision`."""
    recipe: PathText = Field(min_length=1)
    """Recipe whose `engine`, `seed`, `model.dtype`, `model.context_tokens` and `model.pickled_weights` the engine is started with; relative to the repository."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest response if a request sets no length, tokens."""
    adapters: Adapters | None = None
    """Room for adapters, which are then served beside the model by the same engine (`jobs.deploy adapter=FOLDER`); unset: none."""
    route_by_prefix: bool = False
    """Whether prompts that begin alike go to the same replica, for the sake of its cache; of use with several replicas."""
    deployment: dict[str, Any] = {}
    """Ray Serve's options for the engine's deployment: autoscaling_config, health_check_period_s and so on."""


T = TypeVar("T", bound=Strict)


def validate(kind: type[T], tree: dict[str, Any], where: str) -> T:
    """Validate the settings in `tree`.

    Raises:
        ConfigError: naming `where`, the key, the value and the problem.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, e['loc'])) or 'settings'}={e['input']!r}: {e['msg']}" for e in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None


def recipe_at(path: str) -> Recipe:
    """Load the recipe of a Serve config; relative paths are relative to the repository."""
    return load(ROOT / path, [])


def model_folder(path: str) -> str:
    """The folder or Hugging Face name from which an engine and a tokenizer load; `embedded` is unpacked on first use.

    A relative path is relative to the repository. A Hugging Face name is unchanged: the engine downloads it.

    Raises:
        ConfigError: it looks like a folder that does not exist.
        ModelError: the folder does not hold a complete model.
    """
    path = expand_home(path)
    folder = ROOT / path
    is_name = path != "embedded" and not folder.exists() and not path.startswith((".", "/", "~", "runs/"))
    # The engine refuses pickled weights if its recipe does not allow them.
    model = ModelConfig(path=path if path == "embedded" else str(folder), pickled_weights=True)
    return path if is_name else resolve_model(model, "model")
