"""What `benchmarks.train_step` trains: a model's shape, rows of random ids, and what a step on them costs a machine."""

import time
from typing import Any

SHAPES = {
    "smollm-135m": (576, 1536, 30, 9, 3, 49152),
    "qwen2-0.5b": (896, 4864, 24, 14, 2, 151936),
    "qwen2-1.5b": (1536, 8960, 28, 12, 2, 151936),
    "small": (128, 256, 4, 4, 2, 4096),
}
"""Hidden size, MLP size, layers, heads, key-value heads, words."""
_MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product gives the machine's rate, by device."""
_PRODUCTS = {"cpu": (0, 1), "cuda": (3, 10)}
"""Products that warm up, and products that are measured together: one on a GPU is over before the clock has been read."""

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
    # On a GPU drawn there: a CPU takes a minute for some 10^9 numbers.
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM(config).to(getattr(torch, dtype))


def matrix_rate(dtype: str, device: str) -> float:
    """Operations per second of one large matrix product, the better of two; random numbers, as zeros are faster."""
    import torch

    side, (warm, measured) = _MATRIX[device], _PRODUCTS[device]
    left, right = (torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    for _ in range(warm):
        torch.mm(left, right)
    best = float("inf")
    for _ in range(2):
        wait(device)
        started_s = time.monotonic()
        for _ in range(measured):
            torch.mm(left, right)
        wait(device)
        best = min(best, time.monotonic() - started_s)
    return 2.0 * measured * side**3 / best


def wait(device: str) -> None:
    """Until a GPU has done what it was given; a CPU has, when a call returns."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
