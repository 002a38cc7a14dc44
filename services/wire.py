"""Bodies of our own routes: strict, so that a field that is not understood is refused instead of dropped."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from offsft.records import Outcome

Stage = Literal["self", "guided", "expert"]
Wave = Annotated[int, Field(ge=1, le=1024)]
Text = Annotated[str, Field(min_length=1)]

_PROBLEM = {
    "problem": "Mia has 3 boxes with 4 pens each. How many pens does she have?",
    "solution": "3 * 4 = 12. \\boxed{12}",
}


def _example(body: dict[str, Any]) -> Any:
    return {"examples": [body]}


class Body(BaseModel):
    """Base of the requests."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Waves(Body):
    """Samples in each wave; a stage ends with the first wave that holds a correct one."""

    self_: list[Wave] | None = Field(default=None, alias="self", max_length=16)
    guided: list[Wave] | None = Field(default=None, max_length=16)


class RewriteProblem(Body):
    """A problem and its expert solution, to be taken through the cascade."""

    model_config = ConfigDict(json_schema_extra=_example(_PROBLEM))

    problem: Text
    """The problem's text."""
    solution: Text
    """The expert's worked solution."""
    answer: str | None = None
    """The reference answer; without it, that in the solution's last `\\boxed{}`."""
    stages: list[Stage] | None = Field(default=None, min_length=1, max_length=3)
    """Which stages run, in the order self, guided, expert; all if not given. The expert solution is the last resort always."""
    waves: Waves | None = None
    """Other waves than the recipe's."""
    temperature: float | None = Field(default=None, gt=0, le=2, allow_inf_nan=False)
    """Another sampling temperature than the recipe's."""
    keep_attempts: bool = False
    """Whether the answer has the text of every attempt."""


class RewriteRequest(RewriteProblem):
    """As a problem of a batch; with `stream`, server-sent events tell each attempt as it is judged."""

    model_config = ConfigDict(json_schema_extra=_example(_PROBLEM | {"keep_attempts": True}))

    model: str | None = None
    """One of GET /v1/models; without it the default."""
    stream: bool = False


class BatchRequest(Body):
    """Several problems; the results come as they are ready."""

    model_config = ConfigDict(json_schema_extra=_example({"problems": [_PROBLEM]}))

    problems: list[RewriteProblem] = Field(min_length=1)
    model: str | None = None


class VerifyRequest(Body):
    """A response and the reference answer."""

    model_config = ConfigDict(json_schema_extra=_example({"response": "It is \\boxed{\\frac{1}{2}}", "answer": "0.5"}))

    response: str
    answer: Text
    verifier: Text | None = None
    """How answers are compared; without it, as the recipe says."""


class AttemptAnswer(BaseModel):
    stage: Stage
    outcome: Outcome
    tokens: int
    text: str | None = None


class Token(BaseModel):
    """A token of the kept response; the pieces of text join to the response and its end of turn. Log-probs in nats."""

    text: str
    policy_logprob: float
    behavior_logprob: float | None


class ExpertToken(BaseModel):
    text: str
    policy_logprob: float


class Gap(BaseModel):
    """Mean log-probs under the policy on the plain prompt, nats a token; `closed` is the first less the second."""

    kept_mean_logprob: float
    expert_mean_logprob: float
    closed: float


class Usage(BaseModel):
    """Tokens that the engine has read and written for this answer, scoring included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(BaseModel):
    seconds: float
    queued_seconds: float


class RewriteAnswer(BaseModel):
    """What the cascade kept, and the gap to the policy."""

    id: str
    model: str
    revision: str
    source: Stage
    response: str
    answer: str
    attempts: list[AttemptAnswer]
    tokens: list[Token]
    expert_tokens: list[ExpertToken]
    behavior_logprobs: list[float] | None
    policy_logprobs: list[float]
    gap: Gap
    usage: Usage
    timing: Timing


class VerifyAnswer(BaseModel):
    outcome: Outcome
    extracted: str | None


class Example(BaseModel):
    name: str
    problem: str
    solution: str
    answer: str


class Examples(BaseModel):
    examples: list[Example]


class ModelCard(BaseModel):
    """As OpenAI's, with the revision of the weights, and whether requests that name no model get this one."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    revision: str
    default: bool


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Each model has just sampled a token."""

    status: Literal["ready"] = "ready"
    models: list[str]
