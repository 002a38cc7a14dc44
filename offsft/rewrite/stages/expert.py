"""The expert stage keeps the demonstration itself, as the last resort."""

from collections.abc import Sequence

from offsft.config.stages import ExpertStage
from offsft.rewrite.stages.base import Kept, Stage, Task


class Expert(Stage[ExpertStage]):
    """Keeps the expert's solution unchanged; nothing is sampled, so its behavior log-probs are unknown."""

    config = ExpertStage

    async def solve(self, task: Task, waves: Sequence[int]) -> Kept:
        return Kept(task.problem.solution, task.expert_ids, None)
