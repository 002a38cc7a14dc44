"""The guided stage: the policy solves the problem again with the expert's solution in its prompt."""

from collections.abc import Sequence

from offsft.config.stages import GuidedStage
from offsft.records import Attempt, Completion, Outcome, Problem
from offsft.rewrite.stages.base import Prompt, Stage


class Guided(Stage[GuidedStage]):
    """Samples from `prompt.guided`; refuses a response much shorter than the solution it shows."""

    config = GuidedStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt:
        return Prompt(self.prompts.guided(problem))

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        share = self.settings.min_share
        if share and self._answer_tokens(completion) < share * self._answer_tokens(self._solution(problem)):
            return Outcome.BARE
        return None

    def _answer_tokens(self, completion: Completion) -> int:
        """Length without the thought: a long thought does not make up for a bare answer."""
        return len(completion.token_ids) - self.prompts.parts(completion).thought_tokens

    def _solution(self, problem: Problem) -> Completion:
        return Completion(problem.solution, self.prompts.response(problem.solution), None, "stop")
