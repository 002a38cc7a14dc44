"""The prefix stage: the policy solves the problem with the beginning of the expert's solution in view.

The least that is enough: each wave shows a larger part (arXiv 2601.18779, 2507.01679).
"""

import re
from collections.abc import Sequence

from offsft.config.stages import PrefixStage
from offsft.records import Attempt, Completion, Outcome, Problem
from offsft.rewrite.stages.base import Prompt, Skipped, Stage
from offsft.verify.mentions import before_answer

_BORDER = re.compile(r"\n+|(?<=[.!?;])\s+|(?<=[。！？；])|(?<=\\\\)\s*")
"""Ends of steps: of lines, of sentences, and of what semicolons divide."""
_DISPLAY = re.compile(r"\\\[.*?\\\]|\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_LEAK = re.compile(
    r"\b(?:begins like this|(?:the|this|that) (?:given|shown|provided) (?:beginning|start))\b", re.IGNORECASE
)


class Prefix(Stage[PrefixStage]):
    """Shows a growing share of the solution's steps, never one that states the answer; the row keeps the share shown."""

    config = PrefixStage

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt | Skipped | None:
        if wave >= len(self.settings.shares):
            return None
        ends = step_ends(problem)
        if not ends:
            return Skipped("the solution has no step before the one with its answer")
        share = self.settings.shares[wave]
        end = max([at for at in ends if at <= share * ends[-1]], default=ends[0])
        shown = problem.solution[:end].rstrip()
        ids = self.prompts.ask(self.settings.prompt, problem, plain=self.prompts.plain_text(problem), shown=shown)
        return Prompt(ids, details={"share": share, "shown_share": round(end / len(problem.solution), 3)}, shown=shown)

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        return Outcome.LEAKED if _LEAK.search(completion.text) else None


def step_ends(problem: Problem) -> list[int]:
    """Where the steps of a problem's solution end, up to the last one before the answer is stated."""
    text = problem.solution
    limit = len(before_answer(text, problem))
    # Half of an equation or of an environment would be no step.
    inside = [match.span() for match in _DISPLAY.finditer(text)]
    ends = [match.start() for match in _BORDER.finditer(text) if match.start() > 0 and match.end() <= limit]
    return [end for end in ends if not any(start < end < stop for start, stop in inside) and text[:end].strip()]
