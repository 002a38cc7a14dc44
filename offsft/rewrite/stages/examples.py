"""The examples stage: the policy sees similar problems that this run has solved, as worked examples."""

import re
from collections.abc import Sequence

from offsft.config.stages import ExamplesStage
from offsft.records import Attempt, Completion, Outcome, Problem, Rewrite
from offsft.rewrite.stages.base import Prompt, Skipped, Stage
from offsft.verify.thoughts import without_thoughts

_EXAMPLE = "Problem: {problem}\n\nSolution: {response}"
_LEAK = re.compile(
    r"\b(?:(?:previous|above|given|earlier|other|solved|worked|these|those)\s+(?:examples?|problems?)|similar\s+problems?|same manner)\b",
    re.IGNORECASE,
)


class Examples(Stage[ExamplesStage]):
    """Shows the solved problems nearest by BM25; the row keeps their ids."""

    config = ExamplesStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt | Skipped:
        if self.solved is None:
            return Skipped("there is no run whose solved problems could be shown")
        found = await self.solved.similar(problem.id, problem.problem, self.settings.shown, pool=self.settings.pool)
        if not found:
            return Skipped("the run has solved no similar problem yet")
        # The most similar one last: right before the problem.
        blocks = (
            _EXAMPLE.format(problem=each.problem, response=without_thoughts(each.response).strip())
            for each in reversed(found)
        )
        shown = "\n\n".join(blocks)
        ids = self.prompts.ask(self.settings.prompt, problem, plain=self.prompts.plain_text(problem), shown=shown)
        return Prompt(ids, details={"examples": [each.id for each in found]}, shown=shown)

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        return Outcome.LEAKED if _LEAK.search(completion.text) else None

    def finished(self, rewrite: Rewrite) -> None:
        if self.solved is not None:
            self.solved.add(rewrite)
