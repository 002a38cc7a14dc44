"""The teacher stage: another model writes a hint or a solution, and the policy solves the problem with it in view."""

import re
from collections.abc import Sequence

from offsft.chat import ChatModel, ChatServer, RefusedForGood
from offsft.config.stages import TeacherStage
from offsft.errors import EngineError
from offsft.prompts import Prompts
from offsft.prompts.rendering import fill_template
from offsft.records import Attempt, Completion, Outcome, Problem
from offsft.rewrite.stages.base import Kept, Prompt, Stage, Task, solve_in_waves
from offsft.verify.mentions import without_answer
from offsft.verify.thoughts import without_thoughts

_ASKS = {
    "hint": (
        "{problem}\n\nA worked solution, for you alone:\n\n{solution}\n\nA student could not solve the problem. Write a hint of one to three"
        " sentences that says which idea or step leads on. Do not state the final answer, and do not solve the whole problem."
    ),
    "solution": "{problem}\n\nSolve the problem step by step, and put the final answer in \\boxed{}.",
}
"""What the teacher is asked, by mode."""
_ALONE = (
    "\n\nNow solve the problem in your own words, step by step, from its beginning to the final answer, as if you had found the way"
    " yourself. Do not mention {what}."
)
_PROMPTS = {
    "hint": "{plain}\n\nA hint: {shown}" + _ALONE.replace("{what}", "that there was a hint"),
    "solution": "{plain}\n\nHere is one way to work it out:\n\n{shown}"
    + _ALONE.replace("{what}", "that a solution was shown"),
}
"""What the policy is asked, by mode."""
_LEAK = re.compile(r"\bhint(?:s|ed)?\b", re.IGNORECASE)
_REASON_CHARACTERS = 300


class Teacher(Stage[TeacherStage]):
    """Asks the teacher once per problem; the row keeps what it wrote.

    The policy is never shown a teacher's solution that the verifier holds for wrong. A problem for which the teacher
    fails has an attempt `unanswered` with the reason, and goes on to the next stage.

    Raises:
        EngineError: from `solve`, if the server refuses the key or the model, as it would for every problem.
    """

    config = TeacherStage

    def __init__(self, settings: TeacherStage, prompts: Prompts) -> None:
        super().__init__(settings, prompts)
        assert settings.url is not None
        assert settings.model is not None
        self._chat = ChatModel(
            ChatServer(
                settings.url,
                settings.model,
                settings.key_variable,
                settings.tries,
                settings.timeout_s,
                settings.concurrency,
            )
        )

    async def solve(self, task: Task, waves: Sequence[int]) -> Kept | None:
        written, trouble = await self._ask(task.problem)
        if written is not None and self.settings.mode == "solution":
            verdict = await task.verifier(written, task.problem)
            if verdict.outcome is not Outcome.CORRECT:
                written, trouble = None, f"the teacher's solution is judged {verdict.outcome}: {verdict.why}"
        elif written is not None:
            written = without_answer(written, task.problem)
            trouble = trouble or "the teacher's hint says nothing beside the answer"
        if written is None:
            task.record(Attempt(self.name, Outcome.UNANSWERED, 0, why=trouble[:_REASON_CHARACTERS]))
            return None
        details = {"mode": self.settings.mode, "teacher": self.settings.model, "shown": written}
        if self.settings.keep_own:
            return Kept(written, self.prompts.response(written), None, details=details | {"own": True})
        return await solve_in_waves(_Taught(self.settings, self.prompts, details), task, waves)

    async def _ask(self, problem: Problem) -> tuple[str | None, str]:
        """The teacher's text without its thoughts, or None and the reason."""
        template = self.settings.asks or _ASKS[self.settings.mode]
        try:
            reply, trouble = await self._chat.ask(
                fill_template(template, problem, {"answer": problem.answer}),
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
                trouble_of=_trouble_of,
            )
        except RefusedForGood as error:
            setting = f"rewrite.stages.{self.name}"
            raise EngineError(
                f"{setting}: {self.settings.url} refuses model {self.settings.model!r} ({error}); check {setting}.url, .model and"
                f" the key in the environment variable {self.settings.key_variable}"
            ) from None
        return (None, trouble) if reply is None else (without_thoughts(reply).strip(), "")


class _Taught(Stage[TeacherStage]):
    """The policy's tries at one problem with what the teacher wrote in view."""

    def __init__(self, settings: TeacherStage, prompts: Prompts, details: dict[str, str | None]) -> None:
        super().__init__(settings, prompts)
        self._details = details

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt:
        template = self.settings.prompt or _PROMPTS[self.settings.mode]
        plain, shown = self.prompts.plain_text(problem), self._details["shown"] or ""
        return Prompt(self.prompts.ask(template, problem, plain=plain, shown=shown), self._details, shown)

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        is_hint = self.settings.mode == "hint"
        return Outcome.LEAKED if is_hint and _LEAK.search(completion.text) else None


def _trouble_of(reply: str, finish_reason: str) -> str:
    if finish_reason == "length":
        return "the teacher's text was cut off at max_tokens"
    return "" if without_thoughts(reply).strip() else "the teacher's reply is empty, or all of it is a thought"
