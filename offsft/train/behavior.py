"""Checks that the rewrites have the behaviour log-probs that the objective needs."""

import pyarrow.compute as pc

from offsft.config import TrainConfig
from offsft.errors import TrainingError
from offsft.records import EXPERT, UNSOLVED
from offsft.storage.paths import StoragePath, dataset


def check_behavior(rewrites: StoragePath, settings: TrainConfig) -> None:
    """Refuse importance weights over samples with unknown log-probs: they would pass for demonstrations.

    Raises:
        TrainingError: there are such samples; says how many, and what to do.
    """
    if not settings.objective.needs_behavior or settings.responses == "expert":
        return
    rows = dataset(rewrites)
    unknown = rows.count_rows(
        filter=pc.field("behavior_logprobs").is_null() & ~pc.field("source").isin([EXPERT, UNSOLVED])
    )
    if unknown:
        raise TrainingError(
            f"{unknown} of {rows.count_rows()} rows were sampled by an engine that gave no log-probs, which"
            f" train.objective.kind={settings.objective.kind} weighs by; train with another objective, or rewrite with an"
            " engine that gives them (docs/engines.md)"
        )
