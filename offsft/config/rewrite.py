"""Settings of the cascade; those of its stages are in `offsft.config.stages`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from offsft.config.base import FREE, Strict, change_by_name
from offsft.config.guards import GuardConfig
from offsft.config.stages import AnyStage, ExpertStage, GuidedStage, RefineStage, SelfStage
from offsft.errors import ConfigError

_EARLIER = ("self_waves", "guided_waves", "guided_min_share")
_DEFAULT = [SelfStage(), GuidedStage(), ExpertStage()]


class RewriteConfig(Strict):
    stages: list[AnyStage] = _DEFAULT
    """The cascade: each problem goes from stage to stage until one gives a response. A mapping by name changes only the stages that it names."""
    expert: Literal["keep", "none"] = "keep"
    """Whether a problem that no stage solves keeps the expert's solution, as the last stage, or is left out of training and counted."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest sampled response, in tokens."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; 1 samples the policy itself."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 samples the policy itself and is fastest."""
    pick: Literal["random", "shortest", "most_likely", "most_on_policy", "most_supported"] = "random"
    """Which of several correct responses of a wave is kept; `random` is seeded by the problem's id. `most_likely` goes by the log-probs as sampled, `most_on_policy` by the mean on the plain prompt, `most_supported` by the answer's support there."""
    guards: GuardConfig = GuardConfig()
    """Which correct responses are refused for what the hint did to them."""
    give_up: float = Field(default=0.0, ge=0, lt=1)
    """Chance of a further sample being correct, from a problem's failures so far, below which a stage gives the problem up; 0 samples all waves."""
    keep_text: bool = True
    """Keep the text of every attempt, for the report."""
    commit_problems: Annotated[int, FREE] = Field(default=16, ge=1)
    """Problems that are written together; a kill loses at most this number times `engine.concurrent_commits` per pool actor."""

    @property
    def sources(self) -> list[str]:
        """The stages' names, which are the sources of rows, in order."""
        return [stage.name for stage in self.stages]

    @model_validator(mode="before")
    @classmethod
    def _normalize(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        earlier = [key for key in _EARLIER if key in tree]
        if earlier:
            raise ConfigError(
                f"{', '.join(f'rewrite.{key}' for key in earlier)}: the stages are a list now; write"
                f" `rewrite.{_as_stages(tree)}`"
            )
        if isinstance(tree.get("stages"), dict):
            stages = change_by_name([stage.model_dump() for stage in _DEFAULT], tree["stages"], "rewrite.stages")
            return tree | {"stages": stages}
        if tree.get("expert") == "none" and "stages" not in tree:
            return tree | {"stages": [stage for stage in _DEFAULT if not isinstance(stage, ExpertStage)]}
        return tree

    @model_validator(mode="after")
    def _check_stages(self) -> "RewriteConfig":
        names = self.sources
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"rewrite.stages holds {', '.join(twice)} more than once; give each stage a `name` of its own"
            )
        for number, stage in enumerate(self.stages):
            if isinstance(stage, RefineStage) and stage.of not in (None, *names[: number + 1]):
                raise ConfigError(
                    f"rewrite.stages.{stage.name}.of={stage.of}: no stage before it has this name; there are"
                    f" {', '.join(names[:number]) or 'none'}"
                )
        experts = [number for number, stage in enumerate(self.stages, 1) if isinstance(stage, ExpertStage)]
        if self.expert == "none" and experts:
            raise ConfigError(
                "rewrite.expert=none leaves out what no stage solves, and rewrite.stages has a stage of kind expert, which"
                " would keep it; leave out one of them"
            )
        if self.expert == "keep" and experts != [len(names)]:
            raise ConfigError(
                f"rewrite.stages must end in {{kind: expert}} and have it once, and it is {', '.join(names) or 'empty'}; to"
                " leave out what no stage solves, set rewrite.expert=none"
            )
        return self


def _as_stages(tree: dict[str, Any]) -> str:
    """The former settings of the cascade in the current form."""
    own, guided = tree.get("self_waves", SelfStage().waves), tree.get("guided_waves", GuidedStage().waves)
    share = f", min_share: {tree['guided_min_share']}" if tree.get("guided_min_share") else ""
    stages = [
        *([f"{{kind: self, waves: {own}}}"] if own else []),
        *([f"{{kind: guided, waves: {guided}{share}}}"] if guided else []),
        "{kind: expert}",
    ]
    return f"stages: [{', '.join(stages)}]"
