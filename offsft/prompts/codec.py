"""Text to token ids and back, where text that imitates a control token stays text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Markup:
    """Text of a template, in which control tokens are read as such; plain `str` segments are taken literally."""

    text: str


Segments = Sequence[Markup | str]


class Codec:
    """A transformers tokenizer that adds nothing by itself."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.control: dict[str, int] = {str(token): int(id_) for id_, token in tokenizer.added_tokens_decoder.items()}
        """Ids of the tokens that are never made from text, by their text."""
        self.eos: int | None = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
        if self.eos is not None:
            self.control.setdefault(str(tokenizer.eos_token), self.eos)
        names = sorted(filter(None, self.control), key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return str(getattr(self._tokenizer, "name_or_path", "") or "this model")

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which control tokens are read as such."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text in which control tokens stay text."""
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def beginning(self) -> list[int]:
        """The ids that the tokenizer itself puts before a text, such as a beginning of sequence."""
        bare, whole = self.encode("a"), list(self._tokenizer("a")["input_ids"])
        start = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
        return whole[:start]

    def decode(self, ids: Sequence[int], *, controls: bool = True) -> str:
        """The text of ids, with or without control tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not controls, clean_up_tokenization_spaces=False)

    def controls_in(self, text: str) -> list[re.Match[str]]:
        """Where control tokens stand in a text, in order."""
        return list(self._control_pattern.finditer(text))

    def encode_segments(self, segments: Segments, after: str = "") -> list[int]:
        """Ids of the joined segments, which follow the text `after` in a sequence.

        They are encoded together with `after`, as a template's text is: a tokenizer may treat the beginning of a text
        or a space at a boundary in a way of its own. Where that would change the ids of `after`, they are encoded alone.
        """
        if not any(isinstance(each, str) and self._control_pattern.search(each) for each in segments):
            text = "".join(each if isinstance(each, str) else each.text for each in segments)
            before, whole = self.encode(after), self.encode(after + text)
            return whole[len(before) :] if whole[: len(before)] == before else self.encode(text)
        return self._encode_runs(segments)

    def _encode_runs(self, segments: Segments) -> list[int]:
        """The same where plain text imitates a control token: runs of text between the template's control tokens."""
        ids: list[int] = []
        run = ""
        for segment in segments:
            if isinstance(segment, str):
                run += segment
                continue
            end = 0
            for match in self.controls_in(segment.text):
                ids += [*self.encode_text(run + segment.text[end : match.start()]), self.control[match[0]]]
                run, end = "", match.end()
            run += segment.text[end:]
        return [*ids, *self.encode_text(run)]

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each token, which join to the whole text; "" for a token that ends within a character."""
        pieces: list[str] = []
        start = shown = 0  # tokens from `start` are the decoder's context; the text of those before `shown` is out
        for end in range(1, len(ids) + 1):
            known, text = self.decode(ids[start:shown]), self.decode(ids[start:end])
            if text.endswith("\ufffd") and end < len(ids):
                pieces.append("")
            else:
                pieces.append(text[len(known) :])
                start, shown = shown, end
        return pieces
