"""Request and response bodies of our own routes: strict, so that an unknown field is refused instead of dropped."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from offsft.records import Measures, Outcome

Wave = Annotated[int, Field(ge=1, le=1024)]
Text = Annotated[str, Field(min_length=1)]

_PROBLEM = {
    "problem": "Mia has 3 boxes with 4 pens each. How many pens does she have?",
    "solution": "3 * 4 = 12. \\boxed{12}",
}


def _example(body: dict[str, Any]) -> Any:
    return {"examples": [body]}


class Body(BaseModel):
    """Base class of the request bodies."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class RewriteProblem(Body):
    """A problem and its expert solution, to be taken through the cascade."""

    model_config = ConfigDict(json_schema_extra=_example(_PROBLEM))

    problem: Text
    """The problem's text."""
    solution: Text
    """The expert's worked solution."""
    answer: str | int | float | None = None
    """The reference answer, a text or a number; by default the one in the solution's last `\\boxed{}`."""
    stages: list[Text] | None = Field(default=None, min_length=1, max_length=64)
    """Names of the stages to run, in the recipe's order; by default all. If the recipe ends in the expert solution, that stays the last resort."""
    waves: dict[str, Annotated[list[Wave], Field(max_length=16)]] | None = Field(default=None, max_length=64)
    """Waves that replace the recipe's, by stage name: the samples in each wave. A stage ends with the first wave that has a correct sample."""
    temperature: float | None = Field(default=None, gt=0, le=2, allow_inf_nan=False)
    """A sampling temperature that replaces the recipe's."""
    keep_attempts: bool = False
    """Whether the answer includes the text of every attempt."""


class RewriteRequest(RewriteProblem):
    """One problem to rewrite; with `stream`, server-sent events report each attempt as it is judged."""

    model_config = ConfigDict(json_schema_extra=_example(_PROBLEM | {"keep_attempts": True}))

    model: str | None = None
    """A model of GET /v1/models; by default the default model."""
    stream: bool = False


class BatchRequest(Body):
    """Several problems to rewrite; results come as they are ready."""

    model_config = ConfigDict(json_schema_extra=_example({"problems": [_PROBLEM]}))

    problems: list[RewriteProblem] = Field(min_length=1, max_length=1024)
    model: str | None = None


class VerifyRequest(Body):
    """A response to verify, and the reference answer."""

    model_config = ConfigDict(json_schema_extra=_example({"response": "It is \\boxed{\\frac{1}{2}}", "answer": "0.5"}))

    response: str
    answer: Text
    verifier: Text | None = None
    """How answers are compared; by default as the recipe says."""


class OpinionAnswer(BaseModel):
    """What one verifier of a chain said."""

    verifier: str
    outcome: Outcome
    why: str


class AttemptAnswer(BaseModel):
    stage: str
    outcome: Outcome
    tokens: int
    why: str | None = None
    opinions: list[OpinionAnswer] | None = None
    """A guard's reason to refuse it."""
    text: str | None = None


class Token(BaseModel):
    """A token of the kept response; joined, the texts are the response and its end of turn. Log-probs in nats."""

    text: str
    policy_logprob: float
    behavior_logprob: float | None


class ExpertToken(BaseModel):
    text: str
    policy_logprob: float


class RowGap(BaseModel):
    """Mean log-probs under the policy on the plain prompt, nats per token; `closed` is the first minus the second.

    Where no response is kept, the first and `closed` are null.
    """

    kept_mean_logprob: float | None
    expert_mean_logprob: float
    closed: float | None


class Usage(BaseModel):
    """Tokens that the engine read and wrote for this answer, scoring included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(BaseModel):
    seconds: float
    queued_seconds: float


class RewriteAnswer(BaseModel):
    """The response that the cascade kept, its gap to the policy, and its measures.

    `source` is the name of the stage that gave the response, or `unsolved` if none did; `details` is that stage's
    record of how it asked.
    """

    id: str
    model: str
    revision: str
    source: str
    response: str
    answer: str
    details: dict[str, Any] | None
    attempts: list[AttemptAnswer]
    tokens: list[Token]
    expert_tokens: list[ExpertToken]
    behavior_logprobs: list[float] | None
    policy_logprobs: list[float]
    gap: RowGap
    measures: Measures | None
    """What seeing the solution did to the kept response; null where none is kept."""
    usage: Usage
    timing: Timing


class VerifyAnswer(BaseModel):
    """`opinions` has one entry per verifier that was asked, where the recipe has a chain of them."""

    outcome: Outcome
    extracted: str | None
    opinions: list[OpinionAnswer] | None = None


class Example(BaseModel):
    name: str
    problem: str
    solution: str
    answer: str


class Examples(BaseModel):
    examples: list[Example]


class ModelCard(BaseModel):
    """OpenAI's model card, with the revision of the weights and whether this is the default model."""

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
    """The models that have just sampled a token; and why others have not, which does not take the gateway away."""

    status: Literal["ready"] = "ready"
    models: list[str]
    not_ready: dict[str, str] = {}
