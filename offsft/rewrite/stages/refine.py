"""The refine stage: the policy sees its own last wrong attempt with the verdict on it, and tries again."""

import re
from collections.abc import Sequence

from offsft.config.stages import RefineStage
from offsft.records import Attempt, Completion, Outcome, Problem
from offsft.rewrite.stages.base import Prompt, Skipped, Stage
from offsft.verify.thoughts import without_thoughts

VERDICTS = {
    Outcome.WRONG: "This attempt was checked: its final answer is wrong.",
    Outcome.NO_ANSWER: "This attempt was checked: it gives no final answer in the form that was asked for.",
}
"""What the policy is told. Why a response is wrong is not told, since a verifier's reason may state the answer."""
_LEAK = re.compile(
    r"\b(?:earlier|previous|prior|first|last|initial|original|wrong|incorrect)\s+(?:attempt|answer|solution|response|try|approach)\b"
    r"|\b(?:went wrong|my mistake|the mistake|the error|i apologi[sz]e|sorry)\b|\b(?:corrected|revised)\s+(?:answer|solution|version|attempt)\b",
    re.IGNORECASE,
)


class Refine(Stage[RefineStage]):
    """Shows the last attempt that is wrong or gives no answer; a response that speaks of it is refused."""

    config = RefineStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt | Skipped:
        shown = next((each for each in reversed(attempts) if self._may_show(each)), None)
        if shown is None or shown.text is None:
            return Skipped("no attempt of the policy ended in a wrong answer")
        text = f"{without_thoughts(shown.text).strip()}\n\n{VERDICTS[shown.outcome]}"
        ids = self.prompts.ask(self.settings.prompt, problem, plain=self.prompts.plain_text(problem), shown=text)
        return Prompt(ids, details={"refined": shown.stage, "verdict": str(shown.outcome)}, shown=text)

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        return Outcome.LEAKED if _LEAK.search(without_thoughts(completion.text)) else None

    def _may_show(self, attempt: Attempt) -> bool:
        of_stage = self.settings.of in (None, attempt.stage)
        return (
            attempt.outcome in VERDICTS and of_stage and bool(attempt.text and without_thoughts(attempt.text).strip())
        )
