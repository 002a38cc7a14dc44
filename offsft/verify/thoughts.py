"""Tells a reasoning model's thoughts from its answer, of which they are never part."""

import re

MARKS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>", "<unused95>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
"""Marks around a thought as published models write them: Qwen3 and DeepSeek-R1, Magistral, gpt-oss, Command A, and others."""

_TAGS = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|seed:think|internal_monologue)"
_OPENING = re.compile(
    rf"(?<![^`]`)(?:<{_TAGS}>|◁think▷|<\|begin_of_thought\|>|<\|start_of_thought\|>|\[THINK\]|<\|START_THINKING\|>"
    r"|<\|channel\|>(?:analysis|commentary)\b(?:<\|message\|>)?|<\|inner_prefix\|>|<unused94>)",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"(?<![^`]`)(?:</{_TAGS}>|◁/think▷|<\|end_of_thought\|>|\[/THINK\]|<\|END_THINKING\|>"
    r"|<\|channel\|>final<\|message\|>|<\|inner_suffix\|>|<unused95>)",
    re.IGNORECASE,
)


def without_thoughts(response: str) -> str:
    """The text after the last closed thought; empty if a thought is never closed.

    The opening tag may be missing, since a chat template may have put it into the prompt. Tags in backticks are
    mentioned, not used.
    """
    return split_thought(response)[1]


def split_thought(response: str, *, opened: bool = False) -> tuple[str, str, bool]:
    """The thought and the answer of a response, and whether it ended its thought; `opened`: the prompt has begun one.

    An answer follows the last closed thought. Without one, all of the response is the answer, or none of it if a thought
    was begun.
    """
    begun = closed = before = 0
    if any(sign in response for sign in "<◁["):
        for match in _CLOSING.finditer(response):
            before, closed = match.start(), match.end()
        first = _OPENING.search(response)
        begun = first.end() if first and first.start() <= before else 0
        if again := _OPENING.search(response, closed):
            return response[again.end() :] if not closed else response, "", False
    if not closed:
        return (response, "", False) if opened else ("", response, True)
    return response[begun:before], response[closed:], True
