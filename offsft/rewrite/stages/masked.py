"""The masked stage: the policy solves the problem with the expert's solution in view, but not its answer."""

from collections.abc import Sequence

from offsft.config.stages import MaskedStage
from offsft.records import Attempt, Completion, Outcome, Problem
from offsft.rewrite.stages.base import Prompt, Skipped, Stage
from offsft.verify.mentions import HIDDEN, without_answer


class Masked(Stage[MaskedStage]):
    """Shows the solution with every mention of its answer hidden, so a correct answer was derived and not copied."""

    config = MaskedStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt | Skipped:
        shown = without_answer(problem.solution, problem)
        if shown is None:
            return Skipped("the solution says nothing beside its answer")
        ids = self.prompts.ask(self.settings.prompt, problem, plain=self.prompts.plain_text(problem), shown=shown)
        return Prompt(ids, details={"hidden": shown.count(HIDDEN)}, shown=shown)

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        return Outcome.LEAKED if HIDDEN in completion.text else None
