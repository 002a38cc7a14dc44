"""The self stage: the policy solves the problem by itself."""

from collections.abc import Sequence

from offsft.config.stages import SelfStage
from offsft.records import Attempt, Problem
from offsft.rewrite.stages.base import Prompt, Stage


class SelfSolve(Stage[SelfStage]):
    """Samples from the plain prompt, as used in training, so a kept response is a sample of the policy."""

    config = SelfStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt:
        return Prompt(self.prompts.plain(problem))
