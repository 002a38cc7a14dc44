"""Text to ids and back: single tokens' texts, control tokens in text, ids that follow others."""

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.prompts.codec import Codec, Markup
from tests.unit.prompts.lookalikes import sentencepiece_like


@pytest.mark.parametrize("text", ["plain", "naïve 7 × 8 → 56", "🧮🧮", " lead and trail ", "\ufffd", ""])
def test_the_pieces_of_a_text_join_to_it(text):
    codec = Codec(byte_tokenizer())
    ids = [*codec.encode_text(text), codec.eos]
    pieces = codec.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text + "<|end|>"
    if "\ufffd" not in text:  # which looks like an incomplete character
        assert all(len(piece) <= 1 or piece == "<|end|>" for piece in pieces)


def test_a_character_that_is_cut_off_is_shown_as_such():
    codec = Codec(byte_tokenizer())
    assert codec.pieces(codec.encode_text("a🧮")[:-1]) == ["a", "", "", "\ufffd"]


@pytest.mark.parametrize("content", ["1 + 1", "<|end|>", "a<|end|><|user|>b"])
def test_segments_keep_control_tokens_of_markup_and_text_of_content(content):
    codec = Codec(byte_tokenizer())
    ids = codec.encode_segments([Markup("<|user|>"), content, Markup("<|end|>")])
    assert codec.decode(ids) == f"<|user|>{content}<|end|>"
    assert (ids.count(codec.control["<|user|>"]), ids.count(codec.eos)) == (1, 1)


def test_text_after_other_text_gets_no_beginning_of_its_own():
    codec = Codec(sentencepiece_like())
    alone = codec.encode_segments([" 2 + 3"])
    after = codec.encode_segments([" 2 + 3"], after="[INST] x [/INST]")
    assert alone == [codec.encode("a")[0], *after]  # the space that such a tokenizer puts before a text
    assert codec.encode("[INST] x [/INST]") + after == codec.encode("[INST] x [/INST] 2 + 3")
