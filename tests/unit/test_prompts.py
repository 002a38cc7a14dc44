"""The text of single tokens."""

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import Prompt
from offsft.prompts import Prompts


@pytest.mark.parametrize("text", ["plain", "naïve 7 × 8 → 56", "🧮🧮", " lead and trail ", "\ufffd", ""])
def test_the_pieces_of_a_text_join_to_it(text):
    prompts = Prompts(byte_tokenizer(), Prompt())
    ids = [*prompts._encode_text(text), prompts.end_of_turn]
    pieces = prompts.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text + "<|end|>"
    if "\ufffd" not in text:  # which looks like a character that is not complete
        assert all(len(piece) <= 1 or piece == "<|end|>" for piece in pieces)


def test_a_character_that_is_cut_off_is_shown_as_such():
    prompts = Prompts(byte_tokenizer(), Prompt())
    ids = prompts._encode_text("a🧮")[:-1]
    assert prompts.pieces(ids) == ["a", "", "", "\ufffd"]
