"""Settings of the cascade's stages, one class per kind. For their behaviour see docs/rewriting.md.

The implementations are in `offsft.rewrite.stages`.
"""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from offsft.config.base import Strict, name_of
from offsft.config.class_path import is_class_path
from offsft.errors import ConfigError
from offsft.records import EXPERT, UNSOLVED

KINDS = ("self", "examples", "refine", "prefix", "masked", "teacher", "guided", "expert")
_NAMED_BY_KIND = ("self", "guided", "expert")
"""Kinds whose names no other stage can have: a report words them by name."""
_RESERVED = {"all": "all stages together", "poison": "problems that kill engines", UNSOLVED: "problems of no stage"}

Waves = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class StageConfig(Strict):
    """Settings of every stage."""

    kind: str
    name: str = Field(default="", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")
    """The stage's name, which is the `source` of its rows; unset: its kind, or the name of its class."""

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        named = {"kind": cls.model_fields["kind"].default} | tree
        return tree | {"name": name_of(named)}

    @model_validator(mode="after")
    def _check_name(self) -> "StageConfig":
        taken = _RESERVED | {kind: f"stages of kind {kind}" for kind in _NAMED_BY_KIND if kind != self.kind}
        if self.name in taken:
            raise ConfigError(
                f"rewrite.stages: a stage of kind {self.kind} cannot be named {self.name}, which names"
                f" {taken[self.name]}; give it another name"
            )
        if self.kind == EXPERT and self.name != EXPERT:
            raise ConfigError(
                f"rewrite.stages: the stage of kind expert cannot be named {self.name}: `expert` is the source of all"
                " demonstrations; leave the name out"
            )
        return self


class WavesConfig(StageConfig):
    """Settings of every stage that samples. The settings of a user-defined stage derive from this class."""

    waves: Waves = [1]
    """Samples per wave of the stage, which ends after the first wave with a correct one; `[8]` is a fixed n."""


class SelfStage(WavesConfig):
    """The policy solves the problem by itself."""

    kind: Literal["self"] = "self"
    waves: Waves = [1, 1, 2, 4]
    """Samples per wave of the stage, which ends after the first wave with a correct one; `[8]` is a fixed n."""


class GuidedStage(WavesConfig):
    """The policy solves the problem again with the expert's solution in view."""

    kind: Literal["guided"] = "guided"
    waves: Waves = [1, 1, 2]
    """Samples per wave of the stage, which ends after the first wave with a correct one."""
    min_share: float = Field(default=0.0, ge=0)
    """Shortest response that is kept, as a share of the expert solution's tokens; 0 keeps all. A shorter one is considered to state the answer it was shown without working it out."""


class _AskingStage(WavesConfig):
    """Settings of a stage whose prompt shows something beside the problem."""

    prompt: str = ""
    """The user's turn: `{plain}` stands for the plain prompt, `{shown}` for what the stage shows."""

    @field_validator("prompt")
    @classmethod
    def _check_placeholders(cls, prompt: str) -> str:
        missing = [mark for mark in ("{plain}", "{shown}") if mark not in prompt]
        if missing and (prompt or cls.model_fields["prompt"].default):
            raise ConfigError(
                f"rewrite.stages: the prompt of a stage of kind {cls.model_fields['kind'].default} does not contain"
                f" {' and '.join(missing)}; put it where the text belongs"
            )
        return prompt


_ALONE = (
    "\n\nNow solve the problem in your own words, step by step, from its beginning to the final answer, as if you had found"
    " the way yourself. Do not mention {what}."
)


class MaskedStage(_AskingStage):
    """The policy sees the expert's solution without its final answer, so that arriving there is evidence of a derivation."""

    kind: Literal["masked"] = "masked"
    waves: Waves = [1, 1]
    """Samples per wave of the stage, which ends after the first wave with a correct one."""
    prompt: str = "{plain}\n\nHere is one way to work it out; [...] stands for the result:\n\n{shown}" + _ALONE.format(
        what="that a solution was shown, and write the result where [...] stands"
    )
    """The user's turn: `{plain}` stands for the plain prompt, `{shown}` for the solution without its answer."""


class PrefixStage(_AskingStage):
    """The policy sees the first part of the expert's solution, a larger one in each wave, and never the final answer."""

    kind: Literal["prefix"] = "prefix"
    waves: Waves = [1, 1, 1]
    """Samples per wave of the stage, which ends after the first wave with a correct one; one wave per share."""
    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[0.25, 0.5, 0.75], min_length=1)
    """Share of the solution before its answer that each wave shows, cut back to whole steps, and at least one step."""
    prompt: str = "{plain}\n\nA solution begins like this:\n\n{shown}" + _ALONE.format(
        what="that a beginning was shown"
    )
    """The user's turn: `{plain}` stands for the plain prompt, `{shown}` for the solution's beginning."""

    @model_validator(mode="after")
    def _check_shares(self) -> "PrefixStage":
        if len(self.waves) != len(self.shares) or self.shares != sorted(self.shares):
            raise ConfigError(
                f"rewrite.stages.{self.name}: waves={self.waves} and shares={self.shares} do not go together; give one growing"
                " share per wave"
            )
        return self


class RefineStage(_AskingStage):
    """The policy sees its own last wrong attempt and the verdict on it, and tries again."""

    kind: Literal["refine"] = "refine"
    waves: Waves = [1, 1]
    """Samples per wave of the stage, which ends after the first wave with a correct one."""
    of: str | None = None
    """Name of the stage whose attempts are shown; unset: those of every stage, this one's included."""
    prompt: str = (
        "{plain}\n\nAn earlier attempt:\n\n{shown}\n\nFind out what went wrong there. Then write a new solution, step by step, from"
        " the problem's beginning to the final answer. Do not mention the earlier attempt."
    )
    """The user's turn: `{plain}` stands for the plain prompt, `{shown}` for the attempt and its verdict."""


class TeacherStage(_AskingStage):
    """Another model writes a hint or a solution, and the policy solves the problem with that in view."""

    kind: Literal["teacher"] = "teacher"
    waves: Waves = [1, 1]
    """Samples of the policy per wave of the stage, which ends after the first wave with a correct one."""
    mode: Literal["hint", "solution"] = "hint"
    """What the teacher writes. An answer that a hint gives away is hidden in it."""
    url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Address of an OpenAI-compatible server, with its `/v1`; needed."""
    model: str | None = None
    """Name of the teacher on that server; needed."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key on the nodes that run engines; the key itself is never a setting. Unset there: no key is sent."""
    asks: str | None = None
    """What the teacher is asked, with `{problem}`, `{solution}` (the expert's) and `{answer}`; unset: the mode's own text, which shows the solution for a hint only."""
    prompt: str = ""
    """The user's turn for the policy: `{plain}` stands for the plain prompt, `{shown}` for what the teacher wrote; empty: the mode's own text."""
    keep_own: bool = False
    """Keep a correct solution of the teacher itself, so that the policy is trained on another model's text; only in the mode `solution`."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest text of the teacher, in its tokens."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """The teacher's sampling temperature."""
    concurrency: int = Field(default=16, ge=1)
    """Concurrent requests to the teacher per engine."""
    tries: int = Field(default=4, ge=1)
    """Attempts per request before the stage is given up for a problem (outcome `unanswered`)."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for one reply, seconds."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "TeacherStage":
        missing = [key for key in ("url", "model") if getattr(self, key) is None]
        if missing:
            raise ConfigError(
                f"rewrite.stages.{self.name}: a stage of kind teacher needs {' and '.join(missing)}: the address of an"
                " OpenAI-compatible server (http://host:8000/v1) and the teacher's name there"
            )
        if self.keep_own and self.mode == "hint":
            raise ConfigError(
                f"rewrite.stages.{self.name}.keep_own=true needs mode: solution; a hint is no response to train on"
            )
        return self


class ExamplesStage(_AskingStage):
    """The policy sees similar problems that this run has solved already, as worked examples."""

    kind: Literal["examples"] = "examples"
    waves: Waves = [1, 1]
    """Samples per wave of the stage, which ends after the first wave with a correct one."""
    shown: int = Field(default=2, ge=1, le=64)
    """Examples per problem; fewer are shown while the run has solved fewer."""
    pool: int = Field(default=2000, ge=1)
    """Largest number of solved problems that an engine searches: the latest."""
    prompt: str = (
        "Here are problems that are solved already:\n\n{shown}\n\nNow solve this one in the same manner. Do not mention the others."
        "\n\n{plain}"
    )
    """The user's turn: `{plain}` stands for the plain prompt, `{shown}` for the examples."""


class ExpertStage(StageConfig):
    """The demonstration itself is kept; no stage can come after it."""

    kind: Literal["expert"] = "expert"


class OwnStage(WavesConfig):
    """A user-defined stage, whose options are given next to `waves` and checked by its class when a run begins."""

    model_config = ConfigDict(extra="allow")

    kind: str


def _check_kind(stage: Any) -> Any:
    """Report a wrong kind of stage briefly, before the union's long validation error."""
    if not isinstance(stage, dict):
        if isinstance(stage, Strict):
            return stage
        raise ConfigError(f"rewrite.stages: {stage!r} is not a stage; write it as {{kind: {stage}}}")
    kind = stage.get("kind")
    if not isinstance(kind, str) or (kind not in KINDS and not is_class_path(kind)):
        close = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"rewrite.stages: kind={kind} is none of {', '.join(KINDS)}, and no class of yours"
            f" (mypackage.module:MyStage){hint}"
        )
    return stage


def _tag(stage: Any) -> str:
    kind = stage["kind"] if isinstance(stage, dict) else stage.kind
    return kind if kind in KINDS else "own"


AnyStage = Annotated[
    Annotated[SelfStage, Tag("self")]
    | Annotated[ExamplesStage, Tag("examples")]
    | Annotated[RefineStage, Tag("refine")]
    | Annotated[PrefixStage, Tag("prefix")]
    | Annotated[MaskedStage, Tag("masked")]
    | Annotated[TeacherStage, Tag("teacher")]
    | Annotated[GuidedStage, Tag("guided")]
    | Annotated[ExpertStage, Tag("expert")]
    | Annotated[OwnStage, Tag("own")],
    Discriminator(_tag),
    BeforeValidator(_check_kind),
]
