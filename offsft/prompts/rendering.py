"""Renders the prompts of `offsft.config.PromptConfig`, and the responses to them, as token ids."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from offsft.config import PromptConfig, PromptStyle, Thinking
from offsft.config.domain import ASKED
from offsft.errors import ModelError
from offsft.models import description_of, download_model
from offsft.prompts.assistant_turn import AssistantTurn, find_turn
from offsft.prompts.chat_template import MARK, ChatTemplate, PlainText
from offsft.prompts.codec import Codec, Markup
from offsft.prompts.thoughts import Parts, find_marks, split_response
from offsft.records import Completion, Problem
from offsft.storage.paths import is_url
from offsft.verify.thoughts import split_thought

_RENDERED = 1024
"""Prompts cached as ids: two for each problem that an engine is likely to work on at once."""
_STEP_BY_STEP = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
# The system and user turn of each style except `plain`, as the method's own evaluation prompts these model families;
# without a system turn the chat template inserts its default.
_STYLES: dict[PromptStyle, tuple[str | None, str]] = {
    "qwen-boxed": ("You are a helpful assistant.", _STEP_BY_STEP),
    "llama-boxed": (None, _STEP_BY_STEP),
    "choice": (None, f"{{problem}}\n\n{ASKED['choice']}"),
    "code": (None, f"{{problem}}\n\n{ASKED['code']}"),
    "bare": (None, "{problem}"),
}


class Prompts:
    """Renders prompts and responses for one tokenizer (a transformers tokenizer)."""

    def __init__(self, tokenizer: Any, templates: PromptConfig, thinking: Thinking = "auto") -> None:
        """Probe the tokenizer's template.

        Raises:
            ModelError: there is none, it fails, or what it puts around an answer cannot be told; or `thinking` asks for
                what it has no switch for.
        """
        self._made_from = tokenizer, templates, thinking
        self._codec = Codec(tokenizer)
        self._templates = templates
        self.version = hashlib.sha256(repr((templates, thinking)).encode()).hexdigest()[:12]
        """Identifies the templates, so that rewrites made under different ones do not mix."""
        self._template = _open_template(tokenizer, self._codec, templates, thinking)
        marks = find_marks(self._codec, str(getattr(tokenizer, "chat_template", None) or ""))
        self.turn: AssistantTurn = find_turn(self._template, self._codec, marks)
        """What the template puts around an answer, and the tokens that end it."""
        self._refuse_impossible(thinking)
        # Each wave of a stage needs the same prompt again.
        self._fill = lru_cache(_RENDERED)(self._fill_uncached)
        self._frame = lru_cache(8)(self._frame_uncached)

    def __reduce__(self) -> Any:
        # Actors get the tokenizer that the driver loaded: to load one imports torch, to unpickle one does not.
        return Prompts, self._made_from

    @property
    def end_of_turn(self) -> int:
        """Id of the token that ends the model's turn; the last token of every response."""
        return self.turn.stop_id

    @property
    def template_variables(self) -> Mapping[str, Any]:
        """What the chat template is given besides the turns; a server that renders it by itself needs the same."""
        return self._template.variables

    def plain(self, problem: Problem) -> list[int]:
        """Ids of the plain prompt, on which the model is trained later."""
        return self._fill(self._templates.plain, problem)

    def plain_text(self, problem: Problem) -> str:
        """The text of the user's turn in the plain prompt, for stages that ask something beside it."""
        return fill_template(self._templates.plain, problem).strip()

    def ask(self, template: str, problem: Problem, **texts: str) -> list[int]:
        """Ids of a user turn: a template with `{problem}`, `{solution}` and the names of `texts` filled in."""
        return self._user_turn(fill_template(template, problem, texts))

    def with_style(self, style: PromptStyle, problem: Problem) -> list[int]:
        """Ids of the prompt for a benchmark's problem in one of the styles; `plain` is the plain prompt.

        Raises:
            ModelError: the style has a system message, and the chat template does not accept one.
        """
        if style == "plain":
            return self.plain(problem)
        system, user = _STYLES[style]
        return self._user_turn(fill_template(user, problem), system)

    def guided(self, problem: Problem) -> list[int]:
        """Ids of the guided prompt, which shows the expert solution."""
        return self._fill(self._templates.guided, problem)

    def response(self, text: str) -> list[int]:
        """Ids of a response that was not sampled (the expert's), as the template renders an answer, with its end.

        A thought that begins the text is rendered as one; else `prompt.expert_thought` is. Where the prompt has closed
        the thought (`model.thinking=off`), there is none.
        """
        thought, answer, closed = split_thought(text)
        if self.turn.marks is None or not closed:
            thought, answer = "", text
        before = self.turn.around(thought.strip() or self._templates.expert_thought)
        segments = [*before, answer.strip(), Markup(self.turn.end)]
        return self._codec.encode_segments(segments, after=self.turn.opening)

    def sampled(self, text: str, *, ended: bool = True) -> list[int]:
        """Ids of a sampled response of which only the text is known, with the end of the turn if the model `ended` it.

        They need not be those that were sampled. Marks of thoughts become the tokens that they were.
        """
        marks = [] if self.turn.marks is None else [self.turn.marks.opening, self.turn.marks.closing]
        parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text) if marks else [text]
        segments = [Markup(part) if part in marks else part for part in parts if part]
        ids = self._codec.encode_segments(segments, after=self.turn.opening)
        return [*ids, self.end_of_turn] if ended else ids

    def parts(self, completion: Completion) -> Parts:
        """The thought and the answer of a completion of any of these prompts."""
        opened, text = self.turn.opened, completion.text
        return split_response(self._codec, self.turn.marks, completion.token_ids, text, opened=opened)

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self._codec.encode_text(text))

    def text(self, ids: list[int], *, controls: bool = True) -> str:
        """The text of ids, with or without control tokens."""
        return self._codec.decode(ids, controls=controls)

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each token, which join to the whole text; "" for a token that ends within a character."""
        return self._codec.pieces(ids)

    def _fill_uncached(self, template: str, problem: Problem) -> list[int]:
        return self._user_turn(fill_template(template, problem))

    def _user_turn(self, content: str, system: str | None = None) -> list[int]:
        before, after = self._frame(system)
        return self._codec.encode_segments([Markup(before), content.strip(), Markup(after)])

    def _frame_uncached(self, system: str | None) -> tuple[str, str]:
        """What the template puts around the user's text, so that no text is ever read as a template's mark."""
        before, _, after = self._template.prompt(MARK, system).rpartition(MARK)
        return before, after

    def _refuse_impossible(self, thinking: Thinking) -> None:
        """Refuse a setting of thinking that the template cannot follow."""
        if thinking == "auto" or self._template.switch is not None or (thinking == "on" and self.turn.opened):
            return
        raise ModelError(
            f"model.thinking={thinking}: the chat template of {self._codec.name!r} has no switch for thinking; leave"
            " model.thinking=auto"
        )


def _open_template(
    tokenizer: Any, codec: Codec, templates: PromptConfig, thinking: Thinking
) -> ChatTemplate | PlainText:
    if templates.template == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {codec.name!r} has no chat template; use an instruction-tuned model, put a"
                " chat_template.jinja into the model's folder, or set prompt.template=none for prompts in plain text"
            )
        return ChatTemplate(tokenizer, day=templates.date, thinking=thinking, system=templates.system)
    if codec.eos is None:
        raise ModelError(
            f"prompt.template=none needs a token that ends a response, and the tokenizer of {codec.name!r} has no end of"
            " sequence; set eos_token in the model's tokenizer_config.json"
        )
    return PlainText(codec.decode(codec.beginning()), codec.decode([codec.eos]), system=templates.system)


def fill_template(template: str, problem: Problem, more: Mapping[str, str] | None = None) -> str:
    """A template with `{problem}`, `{solution}` and the names in `more` filled in."""
    # One pass, so that a problem that contains `{solution}` stays unchanged.
    texts = {"problem": problem.problem, "solution": problem.solution, **(more or {})}
    names = "|".join(re.escape(name) for name in texts)
    return re.sub(rf"\{{({names})\}}", lambda match: texts[match[1]], template)


def load_prompts(model: str, revision: str | None, templates: PromptConfig, thinking: Thinking) -> Prompts:
    """Prompts for the tokenizer of a model folder, s3:// URL or Hugging Face name; no weights are fetched.

    Raises:
        ModelError: the tokenizer cannot be loaded without running the model's own code; or as for `Prompts`.
    """
    from transformers import AutoTokenizer

    try:
        with description_of(model if is_url(model) else download_model(model), revision) as folder:
            # Without the argument, transformers would ask at a terminal whether to run the model's own code.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the tokenizer of {model} cannot be loaded: {reason} (code that comes with a model is never run; use one"
            " that transformers knows by itself)"
        ) from None
    return Prompts(tokenizer, templates, thinking)
