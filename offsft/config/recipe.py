"""One recipe: every section of settings, the stages whose results each changes, and the checks across sections."""

import difflib
from typing import Annotated, Any

from pydantic import Field, model_validator

from offsft.config.base import FREE, Affects, PathText, Strict, refuse
from offsft.config.cluster import ClusterConfig
from offsft.config.compare import CompareConfig, GapConfig
from offsft.config.data import DataConfig
from offsft.config.domain import Domain, with_domain
from offsft.config.engine import EngineConfig
from offsft.config.evaluate import EvaluateConfig
from offsft.config.model import ModelConfig, PromptConfig
from offsft.config.native import with_native_dtype
from offsft.config.plan import PlanConfig
from offsft.config.probe import ProbeConfig
from offsft.config.rewrite import RewriteConfig
from offsft.config.train import TrainConfig
from offsft.config.verify import VerifyConfig
from offsft.errors import ConfigError
from offsft.records import EXPERT

_NEEDS_LOGPROBS = (
    " needs the samples' log-probs, which engine.kind=remote does not give with these settings; see engine.remote.logprobs and"
    " .vllm_extensions, or sample at temperature 1 and top-p 1"
)


class Recipe(Strict):
    run: Annotated[PathText, FREE] = Field(min_length=1)
    """The run's folder, for example `runs/demo` or `s3://bucket/runs/demo`, which holds everything that the run leaves."""
    seed: Annotated[int, Affects("rewrite", "evaluate")] = Field(default=0, ge=0)
    """Seed of the engines and of the training order."""
    domain: Annotated[Domain, Affects("rewrite")] = "math"
    """Domain of the problems: it sets how rows are read, and `prompt` and `verify.kind` unless the recipe does."""
    model: Annotated[ModelConfig, Affects("rewrite", "evaluate")] = ModelConfig()
    prompt: Annotated[PromptConfig, Affects("rewrite", "evaluate")] = PromptConfig()
    data: Annotated[DataConfig, Affects("rewrite")] = DataConfig()
    rewrite: Annotated[RewriteConfig, Affects("rewrite")] = RewriteConfig()
    engine: Annotated[EngineConfig, FREE] = EngineConfig()
    verify: Annotated[VerifyConfig, Affects("rewrite")] = VerifyConfig()
    train: Annotated[TrainConfig, Affects("train")] = TrainConfig()
    evaluate: Annotated[EvaluateConfig, Affects("evaluate")] = EvaluateConfig()
    compare: Annotated[CompareConfig, FREE] = CompareConfig()
    gap: Annotated[GapConfig, FREE] = GapConfig()
    probe: Annotated[ProbeConfig, FREE] = ProbeConfig()
    cluster: Annotated[ClusterConfig, FREE] = ClusterConfig()
    plan: Annotated[PlanConfig, FREE] = PlanConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_the_domain_and_machine(cls, tree: Any) -> Any:
        return with_native_dtype(with_domain(tree)) if isinstance(tree, dict) else tree

    @model_validator(mode="after")
    def _know_sources(self) -> "Recipe":
        known = [*self.rewrite.sources, *([] if EXPERT in self.rewrite.sources else [EXPERT])]
        by_source = {"train.source_weights": self.train.source_weights, "plan.accept": self.plan.accept}
        by_source |= {f"compare.arms.{arm.name}.source_weights": arm.source_weights for arm in self.compare.arms}
        for key, named in by_source.items():
            for name in named.keys() - set(known):
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"{key}.{name}: no stage of rewrite.stages has this name; there are {', '.join(known)}{hint}"
                )
        return self

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> "Recipe":
        context, thought = self.model.context_tokens, self.model.thinking_tokens
        sections = (("rewrite", self.rewrite), ("evaluate", self.evaluate))
        refuse(
            (
                settings.max_tokens >= context,
                f"{section}.max_tokens={settings.max_tokens} leaves no room for a prompt in"
                f" model.context_tokens={context}; lower the one or raise the other",
            )
            for section, settings in sections
        )
        refuse(
            (
                thought is not None and settings.max_tokens <= thought,
                f"{section}.max_tokens={settings.max_tokens} leaves no room for an answer after a thought of up to"
                f" model.thinking_tokens={thought}; raise the one or lower the other",
            )
            for section, settings in sections
        )
        return self

    @model_validator(mode="after")
    def _log_probs_that_are_needed(self) -> "Recipe":
        on_policy = self.rewrite.temperature == 1 and self.rewrite.top_p == 1
        if self.engine.gives_logprobs(on_policy=on_policy):
            return self
        arms = [("train", self.train.objective, self.train.responses)]
        arms += [(f"compare.arms ({arm.name})", arm.objective, arm.responses) for arm in self.compare.arms]
        probed = self.probe.responses or self.train.responses
        arms += [("probe.objectives", objective, probed) for objective in self.probe.objectives]
        refuse(
            [
                (self.rewrite.pick == "most_likely", f"rewrite.pick=most_likely{_NEEDS_LOGPROBS}"),
                *(
                    (
                        objective.needs_behavior and responses == "kept",
                        f"{where}: objective kind={objective.kind}{_NEEDS_LOGPROBS}",
                    )
                    for where, objective, responses in arms
                ),
            ]
        )
        return self


def stages_changed_by(key: str) -> frozenset[str]:
    """The stages whose results the setting at a dotted key changes.

    The setting's own mark counts, else that of the nearest section above it. Keys below a setting, such as entries of a
    mapping, belong to it, and so do keys that no longer exist.
    """
    stages: frozenset[str] = frozenset()
    section: Any = Recipe
    for part in key.split("."):
        fields = getattr(section, "model_fields", {})
        if part not in fields:
            break
        said = [mark.stages for mark in fields[part].metadata if isinstance(mark, Affects)]
        stages = said[-1] if said else stages
        section = fields[part].annotation
    return stages
