"""Renders turns as text: by a tokenizer's chat template, or as plain text for a model that has none."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from offsft.config import Thinking
from offsft.errors import ModelError

MARK = "offsft-content-goes-here"
"""Stands for a text whose place in a rendering is looked for."""
Content = str | list[dict[str, str]]

_SWITCHES = ("enable_thinking", "thinking", "reasoning", "enable_reasoning", "think")
"""Variables by which published chat templates turn thinking on or off: Qwen3, DeepSeek-V3.1 and Granite, Command A."""
_DAY = {"date_string": "%d %b %Y"}
"""Variables that published chat templates read a date from, and its form: Llama 3."""


class Template(Protocol):
    """Renders a user's turn, and the assistant's if there is an answer."""

    def prompt(self, content: str, system: str | None = None) -> str:
        """The text of a prompt, up to where the assistant's turn is sampled."""
        ...

    def answered(self, content: str, answer: str, thought: str = "") -> str:
        """The text of a whole conversation; a template may have no place for the thought."""
        ...


class ChatTemplate:
    """The chat template of a tokenizer, with a fixed date, its thinking switch, and content in the form that it reads."""

    def __init__(self, tokenizer: Any, *, day: date, thinking: Thinking, system: str | None) -> None:
        """Probe the template.

        Raises:
            ModelError: it fails, loses or repeats a text, or has no switch for `thinking`.
        """
        self._tokenizer = tokenizer
        self._name = str(getattr(tokenizer, "name_or_path", "") or "this model")
        self._system = system
        self._forms: dict[str, Callable[[str], Content]] = {}
        # transformers would give the template today's date: a run's prompts must not change overnight.
        self._clock = {"strftime_now": day.strftime}
        self.variables: dict[str, Any] = {}
        """What the template is given besides the turns, JSON-like; a server that renders it by itself needs the same."""
        roles = ("user",) if system is None else ("system", "user")
        self._find_forms(*roles)
        self._find_forms(*roles, "assistant")
        for name, form in _DAY.items():
            if MARK in self._render(_turns(system, "x"), {name: MARK}):
                self.variables[name] = day.strftime(form)
        self.switch = self._find_switch()
        """The variable that turns thinking on or off; None if the template has none."""
        if thinking != "auto" and self.switch is not None:
            self.variables[self.switch] = thinking == "on"

    def prompt(self, content: str, system: str | None = None) -> str:
        """The text of a prompt; `system` replaces the system's turn of the settings.

        Raises:
            ModelError: the template fails, or takes no system message.
        """
        system = self._system if system is None else system
        if system is not None and "system" not in self._forms:
            self._find_forms("system", "user")
        return self._render(_turns(system, content))

    def answered(self, content: str, answer: str, thought: str = "") -> str:
        return self._render(_turns(self._system, content, answer), thought=thought)

    def _find_forms(self, *roles: str) -> None:
        """Find the form of each role's content, text or a list of parts, in which the template renders it once."""
        rendered, failure = "", None
        turns = [(role, _mark(role)) for role in roles]
        for forms in itertools.product((_as_text, _as_parts), repeat=len(roles)):
            self._forms |= dict(zip(roles, forms, strict=True))
            try:
                text = self._render(turns)
            except ModelError as error:
                failure = failure or error
                continue
            lost = [role for role, mark in turns if text.count(mark) != 1]
            if not lost:
                return
            rendered = rendered or text
        for role in roles:
            self._forms.pop(role)
        if failure is not None and not rendered:
            raise failure
        raise ModelError(self._lost(roles, rendered))

    def _find_switch(self) -> str | None:
        for name in _SWITCHES:
            off, on = (self._render(_turns(self._system, "x"), {name: each}) for each in (False, True))
            if off != on:
                return name
        return None

    def _render(
        self, turns: list[tuple[str, str]], variables: Mapping[str, Any] | None = None, thought: str = ""
    ) -> str:
        messages: list[dict[str, Any]] = [{"role": role, "content": self._forms[role](text)} for role, text in turns]
        if thought:
            messages[-1]["reasoning_content"] = thought
        given = {**self._clock, **self.variables, **(variables or {})}
        asks = turns[-1][0] == "user"
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks, **given)
        except Exception as error:  # a template is the model's own code, and may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(self._failure([role for role, _ in turns], f" ({reason})")) from None

    def _failure(self, roles: Sequence[str], because: str) -> str:
        """What to say of a template that failed on turns of these roles, or has lost the system message."""
        if "system" not in roles:
            turns = "a user's turn and an answer" if "assistant" in roles else "a user's turn"
            return (
                f"the chat template of {self._name!r} fails on {turns}{because}; if it needs a system message, set"
                " prompt.system; else use a model with another template, or prompt.template=none"
            )
        advice = "set evaluate.style=llama-boxed or plain" if self._system is None else "leave prompt.system out"
        return f"the chat template of {self._name!r} takes no system message{because}; {advice}"

    def _lost(self, roles: Sequence[str], rendered: str) -> str:
        if "system" in roles and rendered.count(_mark("user")) == 1:
            return self._failure(roles, "")
        return (
            f"the chat template of {self._name!r} does not render the text of a turn once, as text or as a list of parts; of"
            f" {_mark(roles[-1])!r} it makes {rendered!r}; use a model with another template, or prompt.template=none"
        )


class PlainText:
    """The template of a model without one: the prompt, an empty line, and the answer, which the model's end token ends."""

    def __init__(self, beginning: str, end: str, *, system: str | None) -> None:
        """`beginning` and `end` are the texts of the tokens that begin and end a sequence; the first may be empty."""
        self._beginning = beginning
        self._end = end
        self._system = system
        self.switch: str | None = None
        self.variables: dict[str, Any] = {}

    def prompt(self, content: str, system: str | None = None) -> str:
        system = self._system if system is None else system
        return self._beginning + "".join(f"{text}\n\n" for text in (system, content) if text)

    def answered(self, content: str, answer: str, thought: str = "") -> str:
        return f"{self.prompt(content)}{answer}{self._end}"


def _turns(system: str | None, content: str, answer: str | None = None) -> list[tuple[str, str]]:
    turns = [("system", system), ("user", content), ("assistant", answer)]
    return [(role, text) for role, text in turns if text is not None]


def _as_text(text: str) -> Content:
    return text


def _as_parts(text: str) -> Content:
    return [{"type": "text", "text": text}]


def _mark(role: str) -> str:
    return f"{MARK}-of-the-{role}"
