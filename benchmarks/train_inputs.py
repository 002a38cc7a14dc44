"""What `benchmarks.train_step` trains: a model's shape, rows of random ids, and what a step on them costs a machine."""

import time
from typing import Any

SHAPES = {
    "smollm-135m": (576, 1536, 30, 9, 3, 49152),
    "small": (128, 256, 4, 4, 2, 4096),
}
"""Hidden size, MLP size, layers, heads, key-value heads, words."""
_MATRIX = 2048
"""Side of the square matrices whose product gives the machine's rate."""

Rows = list[tuple[list[int], list[int]]]
"""Prompts and responses, as token ids."""


def random_rows(shape: str, rows: int, most: int) -> Rows:
    """Prompts and responses of random ids. GSM8K's have about 75 and 130 tokens, log-normal; the same for both sides."""
    import numpy as np

    draw = np.random.default_rng(0)
    words = SHAPES[shape][-1]
    lengths = draw.lognormal([4.25, 4.8], [0.35, 0.45], size=(rows, 2)).astype(int) + 8
    return [
        (draw.integers(words, size=min(p, most)).tolist(), draw.integers(words, size=min(r, most)).tolist())
        for p, r in lengths
    ]


def operations(shape: str, rows: Rows) -> float:
    """Operations of a step's matrix products, forward and backward, of real tokens: the head's for responses alone."""
    hidden, inner, layers, heads, kv_heads, words = SHAPES[shape]
    size = hidden // heads
    per_token = layers * (hidden * size * (2 * heads + 2 * kv_heads) + 3 * hidden * inner)
    tokens = sum(len(prompt) + len(response) for prompt, response in rows)
    responses = sum(len(response) for _, response in rows)
    return 6.0 * (tokens * per_token + responses * hidden * words)


def random_model(shape: str, dtype: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers, heads, kv_heads, words = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(getattr(torch, dtype))


def matrix_rate(dtype: str, device: str) -> float:
    """Operations per second of one large matrix product, the better of two."""
    import torch

    left, right = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(2):
        started_s = time.monotonic()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started_s)
    return 2.0 * _MATRIX**3 / best
