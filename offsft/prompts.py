"""The plain and the guided prompt of `offsft.config.Prompt`, rendered once by the model's own chat template to token ids.

The ids are what is sampled from, scored and trained on; text is never tokenised a second time, and no second
beginning-of-sequence token can slip in.
"""

import hashlib
import re
from typing import Any

import jinja2

from offsft.config import Prompt, PromptStyle
from offsft.errors import ModelError
from offsft.model_files import fetched
from offsft.records import Problem

_MARK = "offsft-content-goes-here"
_STEP_BY_STEP = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
# The system's and the user's turn of each style but `plain`, as the method's own evaluation asks these families; without
# a system's turn the chat template puts what it puts.
_STYLES: dict[PromptStyle, tuple[str | None, str]] = {
    "qwen-boxed": ("You are a helpful assistant.", _STEP_BY_STEP),
    "llama-boxed": (None, _STEP_BY_STEP),
}


class Prompts:
    """Renders prompts and responses for one tokenizer (a transformers tokenizer with a chat template)."""

    def __init__(self, tokenizer: Any, templates: Prompt) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {getattr(tokenizer, 'name_or_path', 'this model')!r} has no chat template; use an"
                " instruction-tuned model, or put a chat_template.jinja into the model's folder"
            )
        self._tokenizer = tokenizer
        self._templates = templates
        self.version = hashlib.sha256(repr(templates).encode()).hexdigest()[:12]
        """Names the two templates: rewrites that were made under others do not mix."""
        # Text that imitates any of these must reach the model as text, never as a control token.
        self._control = {str(token) for token in tokenizer.added_tokens_decoder.values()}
        self.end_of_turn: int = self._find_end_of_turn()
        """Id of the token that ends the model's turn; the last of every response."""

    def plain(self, problem: Problem) -> list[int]:
        """Ids of the prompt that the model is trained on later."""
        return self._user_turn(_filled(self._templates.plain, problem))

    def styled(self, style: PromptStyle, problem: Problem) -> list[int]:
        """Ids of the prompt that asks a benchmark's problem in one of the styles; `plain` is the plain prompt.

        Raises:
            ModelError: the chat template takes no system message, and the style has one.
        """
        if style == "plain":
            return self.plain(problem)
        system, user = _STYLES[style]
        return self._user_turn(_filled(user, problem), system)

    def guided(self, problem: Problem) -> list[int]:
        """Ids of the prompt that shows the expert solution."""
        return self._user_turn(_filled(self._templates.guided, problem))

    def response(self, text: str) -> list[int]:
        """Ids of a response that was not sampled (the expert's), with the end of turn."""
        return [*self._encode_text(text.strip()), self.end_of_turn]

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each token, so that they join to the text of all; "" for one that ends within a character."""
        pieces: list[str] = []
        start = shown = 0  # tokens from `start` give context to the decoder; those before `shown` have had their text
        for end in range(1, len(ids) + 1):
            known, text = self._tokenizer.decode(ids[start:shown]), self._tokenizer.decode(ids[start:end])
            if text.endswith("\ufffd") and end < len(ids):
                pieces.append("")
            else:
                pieces.append(text[len(known) :])
                start, shown = shown, end
        return pieces

    def _user_turn(self, content: str, system: str | None = None) -> list[int]:
        content = content.strip()
        if not any(token in content for token in self._control):
            return self._encode(self._render(content, system))
        before, after = self._render(_MARK, system).split(_MARK)
        return [*self._encode(before), *self._encode_text(content), *self._encode(after)]

    def _render(self, content: str, system: str | None) -> str:
        messages = [{"role": "user", "content": content}]
        if system is None:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        messages.insert(0, {"role": "system", "content": system})
        try:
            rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            rendered, reason = "", f" ({error})"
        else:
            reason = ""
        if system not in rendered:
            name = getattr(self._tokenizer, "name_or_path", "this model")
            raise ModelError(
                f"the chat template of {name!r} takes no system message{reason}; set evaluate.style=llama-boxed or plain"
            )
        return rendered

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode_text(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _find_end_of_turn(self) -> int:
        messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _MARK}]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False)
        ids = self._encode(rendered.split(_MARK)[-1].lstrip())
        if ids:
            return ids[0]
        if self._tokenizer.eos_token_id is None:
            raise ModelError("the chat template ends the model's turn with no token and the tokenizer has no eos token")
        return int(self._tokenizer.eos_token_id)


def _filled(template: str, problem: Problem) -> str:
    # One pass, so that a problem that contains `{solution}` is left as it is.
    texts = {"{problem}": problem.problem, "{solution}": problem.solution}
    return re.sub(r"\{(?:problem|solution)\}", lambda match: texts[match[0]], template)


def load_prompts(model: str, revision: str | None, templates: Prompt) -> Prompts:
    """Prompts for the tokenizer of a model folder, s3:// URL or Hugging Face name.

    Raises:
        ModelError: there is no tokenizer that can be loaded without running code that came with it, or no chat template.
    """
    from transformers import AutoTokenizer

    try:
        # Left out, transformers would ask at a terminal whether to run the model's own code.
        tokenizer = AutoTokenizer.from_pretrained(fetched(model), revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the tokenizer of {model} cannot be loaded: {reason} (code that comes with a model is never run; use one"
            " that transformers knows by itself)"
        ) from None
    return Prompts(tokenizer, templates)
