"""Settings of the HTTP services."""

from typing import Any

from pydantic import Field, model_validator

from offsft.errors import ConfigError
from offsft.strict import Strict


class Limits(Strict):
    """What one request, one key and one gateway may ask for."""

    body_bytes: int = Field(default=2**20, ge=1024)
    """Largest request body, bytes; beyond it 413."""
    problem_tokens: int = Field(default=2048, ge=1)
    """Longest problem, tokens; beyond it 422."""
    solution_tokens: int = Field(default=4096, ge=1)
    """Longest expert solution, tokens; beyond it 422."""
    samples: int = Field(default=16, ge=1)
    """Most samples of one request: `n` times the prompts of an OpenAI route, the sum of a rewrite's waves; beyond it 422."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest response that an OpenAI route may be asked for, tokens; beyond it 422."""
    batch_problems: int = Field(default=32, ge=1)
    """Most problems of one batch; beyond it 422."""
    batch_at_once: int = Field(default=4, ge=1)
    """Problems of one batch that are in work at once."""
    requests_per_minute: float = Field(default=600, gt=0)
    """Requests of one key to /v1 in the long run; beyond it 429. Each gateway replica counts for itself."""
    burst: int = Field(default=100, ge=1)
    """Requests that a key which has been quiet may send at once."""
    active: int = Field(default=64, ge=1)
    """Sampling requests that a gateway replica works on at once."""
    queued: int = Field(default=64, ge=0)
    """Sampling requests that may wait for their turn; beyond it 503 at once."""
    retry_after_s: int = Field(default=2, ge=1)
    """What `Retry-After` says when the queue is full or an engine is being restarted, seconds."""
    deadline_s: float = Field(default=120, gt=0)
    """Longest time from a sampling request's arrival to its end, waiting included, seconds; beyond it 504."""


class Serving(Strict):
    """Arguments of the gateway."""

    recipe: str = Field(min_length=1)
    """Recipe whose `prompt`, `rewrite`, `verify` and `model.context_tokens` POST /v1/rewrite works by, as the batch job does; relative to the repository."""
    limits: Limits = Limits()
    keys_file: str | None = None
    """File of API keys, one `name: key` a line, read again when it changes; unset: those in OFFSFT_API_KEYS, if any."""
    access_log: str | None = None
    """File that the access log (JSON lines) is appended to; unset: the replica's log in Ray's session folder."""
    ready_timeout_s: float = Field(default=10, gt=0)
    """How long GET /readyz waits for a token from each model, seconds."""


class ServedModel(Strict):
    """A model that the gateway passes requests on to."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """What clients call it."""
    path: str = Field(min_length=1)
    """As `model.path`: the tokenizer is read from there."""
    revision: str | None = None
    """As `model.revision`, for a Hugging Face name; a folder's revision is the fingerprint of its files."""
    application: str = Field(min_length=1)
    """Serve application that holds the model's engine."""


class Routing(Strict):
    """The gateway's `user_config`: which models there are. Changing it needs no restart."""

    default: str
    """Model that answers requests which name none."""
    models: list[ServedModel] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Routing":
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ConfigError(f"the served models {', '.join(names)} need different names")
        if self.default not in names:
            raise ConfigError(f"default={self.default} is none of the served models {', '.join(names)}")
        return self


class Generator(Strict):
    """Arguments of an application that holds one model's engine."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """As the gateway's `models.name`."""
    path: str = Field(min_length=1)
    """As `model.path`; a folder must be there on every node that may run the engine."""
    revision: str | None = None
    """As `model.revision`."""
    recipe: str = Field(min_length=1)
    """Recipe whose `engine`, `seed`, `model.dtype`, `model.context_tokens` and `model.pickled_weights` the engine is started with; relative to the repository."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest response where a request does not say, tokens."""
    deployment: dict[str, Any] = {}
    """Options of the engine's deployment as Ray Serve has them: autoscaling_config, health_check_period_s and so on."""
