"""One recipe: every section of settings, and what must hold between them."""

from typing import Any

from pydantic import Field, model_validator

from offsft.config.cluster import Cluster
from offsft.config.compare import Compare, Gap
from offsft.config.data import Data
from offsft.config.domain import Domain, with_domain
from offsft.config.evaluate import Evaluate
from offsft.config.model import Model, Prompt
from offsft.config.plan import Plan
from offsft.config.rewrite import Engine, Rewrite
from offsft.config.train import Train
from offsft.config.verify import Verify
from offsft.errors import ConfigError
from offsft.strict import Strict


class Recipe(Strict):
    run: str = Field(min_length=1)
    """The run's folder, for example `runs/demo` or `s3://bucket/runs/demo`: everything the run leaves is there."""
    seed: int = Field(default=0, ge=0)
    """Seed of the engines and of the order of training."""
    domain: Domain = "math"
    """What the problems are: it sets how rows are read, and `prompt` and `verify.kind` where the recipe does not."""
    model: Model = Model()
    prompt: Prompt = Prompt()
    data: Data = Data()
    rewrite: Rewrite = Rewrite()
    engine: Engine = Engine()
    verify: Verify = Verify()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    gap: Gap = Gap()
    cluster: Cluster = Cluster()
    plan: Plan = Plan()

    @model_validator(mode="before")
    @classmethod
    def _of_the_domain(cls, tree: Any) -> Any:
        return with_domain(tree) if isinstance(tree, dict) else tree

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        train = self.train
        least_stage = {"none": 0, "optimizer": 1, "optimizer_and_weights": 3}[train.offload]
        engine = self.engine
        problems = [
            (
                (engine.tensor_parallel > 1 or engine.gpus > 1) and engine.gpus != engine.tensor_parallel,
                f"engine.gpus={engine.gpus:g} does not go with engine.tensor_parallel={engine.tensor_parallel}: an engine"
                " spreads over all of its GPUs; give both the same number",
            ),
            (
                engine.actors_max is not None and engine.actors_max < engine.actors,
                f"engine.actors_max={engine.actors_max} is below engine.actors={engine.actors}; raise it, or leave it out",
            ),
            (
                train.zero_stage < least_stage,
                f"train.offload={train.offload} needs train.zero_stage={least_stage} or higher, not {train.zero_stage}",
            ),
            (
                train.offload != "none" and train.gpus_per_worker == 0,
                f"train.offload={train.offload} moves memory away from GPUs, and train.gpus_per_worker=0 uses none;"
                " set train.offload=none",
            ),
            (
                train.skip_steps > 0 and train.zero_stage == 3,
                f"train.skip_steps={train.skip_steps} does not work with train.zero_stage=3, in which DeepSpeed has"
                " updated the weights before it knows the gradient; set it to 0, or a lower stage",
            ),
            (
                train.lora.keep_adapter and train.lora.rank == 0,
                "train.lora.keep_adapter=true has no adapter to keep; set train.lora.rank, for example to 16",
            ),
            (
                self.rewrite.max_tokens >= self.model.context_tokens,
                f"rewrite.max_tokens={self.rewrite.max_tokens} leaves no room for a prompt in"
                f" model.context_tokens={self.model.context_tokens}; lower the one or raise the other",
            ),
            (
                self.evaluate.max_tokens >= self.model.context_tokens,
                f"evaluate.max_tokens={self.evaluate.max_tokens} leaves no room for a prompt in"
                f" model.context_tokens={self.model.context_tokens}; lower the one or raise the other",
            ),
            (
                self.train.micro_batch_tokens < self.train.max_tokens,
                f"train.micro_batch_tokens={self.train.micro_batch_tokens} cannot hold a row of"
                f" train.max_tokens={self.train.max_tokens}; raise it to at least that",
            ),
            (
                self.train.global_batch < self.train.workers,
                f"train.global_batch={self.train.global_batch} gives some of train.workers={self.train.workers}"
                f" nothing to do; raise it to at least {self.train.workers}",
            ),
            (
                self.evaluate.temperature == 0 and self.evaluate.samples > 1,
                f"evaluate.samples={self.evaluate.samples} at evaluate.temperature=0 would give the same answer each"
                " time; set evaluate.samples=1 or a temperature above 0",
            ),
            (
                self.evaluate.temperature == 0 and self.evaluate.greedy,
                "evaluate.greedy=true adds nothing at evaluate.temperature=0, which is greedy; leave it out",
            ),
            (
                self.evaluate.temperature == 0 and self.evaluate.top_p < 1,
                f"evaluate.top_p={self.evaluate.top_p} has no effect at evaluate.temperature=0 (greedy);"
                " leave it at 1 or set a temperature above 0",
            ),
        ]
        wrong = [message for is_wrong, message in problems if is_wrong]
        if wrong:
            raise ConfigError("; ".join(wrong))
        return self
