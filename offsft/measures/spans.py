"""The tokens of a piece of a response's text, found by decoding a few of its prefixes."""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
"""The text of token ids, control tokens included."""
_UNFINISHED = "\ufffd"
"""What a decoder writes for a token that ends within a character."""


class TokenSpans:
    """Finds the tokens that write a span of characters of one response.

    Prefixes are decoded where a search needs them, since decoding each of a response's tokens would cost more than
    all measures together.
    """

    def __init__(self, ids: Sequence[int], decode: Decode) -> None:
        self._ids = list(ids)
        self._decode = decode
        self._length_of: dict[int, int] = {0: 0}

    def matches(self, text: str) -> bool:
        """Whether the ids write this text (and possibly control tokens behind it)."""
        whole = self._decode(self._ids)
        self._length_of[len(self._ids)] = len(whole.rstrip(_UNFINISHED))
        return whole.startswith(text)

    def tokens(self, start: int, end: int) -> range:
        """The indices of the tokens that write the characters from `start` to `end`, also in part."""
        first = self._first_reaching(start)
        begun = first > 0 and self._length(first) > start  # its last token goes on beyond `start`
        return range(first - begun, self._first_reaching(end))

    def _first_reaching(self, length: int) -> int:
        """The smallest number of tokens whose text has at least `length` characters."""
        low, high = 0, len(self._ids)
        for tokens, known in self._length_of.items():
            low = max(low, tokens + 1) if known < length else low
            high = min(high, tokens) if known >= length else high
        while low < high:
            # Tokens have about equally many characters, so a guess by proportion is nearer than the middle.
            before, behind = self._length(low - 1) if low else 0, self._length(high)
            share = (length - before) / max(1, behind - before)
            guess = min(high - 1, max(low, low - 1 + round(share * (high - low + 1))))
            if self._length(guess) >= length:
                high = guess
            else:
                low = guess + 1
        return low

    def _length(self, tokens: int) -> int:
        if tokens not in self._length_of:
            self._length_of[tokens] = len(self._decode(self._ids[:tokens]).rstrip(_UNFINISHED))
        return self._length_of[tokens]
