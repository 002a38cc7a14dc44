"""Tells a response's thought from its answer, by the marks of the model's template or tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass

from offsft.prompts.codec import Codec
from offsft.verify.thoughts import MARKS, split_thought


@dataclass(frozen=True, slots=True)
class Parts:
    """A response's thought and answer, without the marks and the end of the turn.

    `thought_tokens` counts the tokens up to and with the mark that closes the thought; the answer begins after them.
    `finished` is False if a thought was begun and never closed: there is no answer then.
    """

    thought: str
    answer: str
    thought_tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Marks:
    """The texts around a model's thoughts, and their ids where they are one token each."""

    opening: str
    closing: str
    opening_id: int | None
    closing_id: int | None

    def opens(self, codec: Codec, ids: Sequence[int]) -> bool:
        """Whether the opening mark is among the ids; one of several tokens is looked for in their text."""
        if self.opening_id is not None or not codec.controls_in(self.opening):
            return self.opening_id in ids
        return self.opening in codec.decode(ids)

    def thought(self, codec: Codec, ids: Sequence[int]) -> str:
        """The text of ids after the opening mark, or of all of them if the prompt has it; without control tokens."""
        if self.opening_id is not None and self.opening_id in ids:
            return codec.decode(ids[list(ids).index(self.opening_id) + 1 :], controls=False)
        return codec.decode(ids).rpartition(self.opening)[2]


def find_marks(codec: Codec, template: str) -> Marks | None:
    """The published marks that the template writes, else those that the tokenizer has as tokens; None if neither has any."""
    written = [pair for pair in MARKS if pair[1] in template]
    tokens = [pair for pair in MARKS if pair[0] in codec.control and pair[1] in codec.control]
    for opening, closing in written + tokens:
        return Marks(opening, closing, codec.control.get(opening), codec.control.get(closing))
    return None


def split_response(codec: Codec, marks: Marks | None, ids: Sequence[int], text: str, *, opened: bool) -> Parts:
    """The parts of a response; `text` is its text, which may lack control tokens, and `opened` says of the prompt.

    Marks that are tokens are looked for among the ids, where text that only mentions them does not count. Others, and
    those of other models, which a model may write all the same, are looked for in the text.
    """
    if marks is None or marks.closing_id is None:
        return _count_tokens(codec, ids, text, _split_text(marks, text, opened))
    closed = max((n + 1 for n, id_ in enumerate(ids) if id_ == marks.closing_id), default=0)
    if marks.opens(codec, ids[closed:]):
        return Parts(marks.thought(codec, ids[closed:]), "", len(ids), finished=False)
    if not closed:
        return _count_tokens(codec, ids, text, split_thought(text, opened=opened))
    thought, answer = marks.thought(codec, ids[: closed - 1]), codec.decode(ids[closed:], controls=False)
    return Parts(thought, answer, closed, finished=True)


def _split_text(marks: Marks | None, text: str, opened: bool) -> tuple[str, str, bool]:
    if marks is not None and text.lstrip().startswith(marks.opening):
        thought, closing, answer = text.partition(marks.opening)[2].partition(marks.closing)
        return thought, answer, bool(closing)
    return split_thought(text, opened=opened)


def _count_tokens(codec: Codec, ids: Sequence[int], text: str, split: tuple[str, str, bool]) -> Parts:
    thought, answer, finished = split
    if not finished:
        return Parts(thought, "", len(ids), finished=False)
    if answer == text:
        return Parts("", text, 0, finished=True)
    left, tokens = len(text) - len(answer), 0
    for piece in codec.pieces(list(ids)):
        if left <= 0:
            break
        left, tokens = left - len(piece), tokens + 1
    return Parts(thought, answer, tokens, finished=True)
