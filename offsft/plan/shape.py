"""The shape of a decoder: how many numbers its weights, its cache and its activations have."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsft.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a decoder with gated MLPs and grouped-query attention, such as Llama, Qwen and Gemma.

    With `experts`, each block's MLP is a mixture of that many, of `intermediate` each, of which a token goes through
    `experts_chosen`.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    attention_bias: bool = False
    head_norms: bool = False
    """Whether queries and keys have norms of their own, as in Qwen3 and Gemma 3."""
    norms: int = 2
    """Norms of a block."""
    experts: int = 0
    experts_chosen: int = 0
    scores_written_out: bool = False
    """Whether attention caps its scores or has sinks, which no kernel knows: each row's scores are then in memory."""

    @property
    def attention_linears(self) -> list[tuple[int, int]]:
        """(in, out) of each linear layer of one block's attention."""
        d, q, kv = self.hidden, self.heads * self.head_size, self.kv_heads * self.head_size
        return [(d, q), (d, kv), (d, kv), (q, d)]

    @property
    def mlp_linears(self) -> list[tuple[int, int]]:
        """(in, out) of each linear layer of one MLP, or of one expert."""
        d, f = self.hidden, self.intermediate
        return [(d, f), (d, f), (f, d)]

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of each linear layer of one block that an adapter is added to."""
        # Experts are stored as one tensor, not as linear layers, so adapters are on the attention alone.
        return self.attention_linears + ([] if self.experts else self.mlp_linears)

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self._parameters(self.experts or 1)

    @property
    def active_parameters(self) -> int:
        """Parameters that a token's arithmetic goes through; of a mixture, those of the chosen experts."""
        return self._parameters(self.experts_chosen or 1)

    def _parameters(self, mlps: int) -> int:
        bias = (self.heads + 2 * self.kv_heads) * self.head_size if self.attention_bias else 0
        norms = self.norms * self.hidden + (2 * self.head_size if self.head_norms else 0)
        router = self.hidden * self.experts
        block = _sizes(self.attention_linears) + mlps * _sizes(self.mlp_linears) + router + bias + norms
        return self.embedding_parameters * (1 if self.tied else 2) + self.layers * block + self.hidden

    def cache_bytes(self, width: int = 2) -> int:
        """Bytes per token in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_size * width

    def activation_bytes(self, tokens: int, *, checkpointing: bool, width: int = 2) -> int:
        """Bytes kept for the backward pass: each layer's input, and the activations inside all layers.

        With `checkpointing`, only those inside one layer.
        """
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        mlps = self.experts_chosen or 1
        inside = width * tokens * (3 * self.hidden + 2 * q + 2 * kv + 4 * self.intermediate * mlps)
        return self.layers * width * tokens * self.hidden + inside * (1 if checkpointing else self.layers)

    def score_bytes(self, tokens: int, *, checkpointing: bool) -> int:
        """Bytes of attention scores and shares in float32, of one row of so many tokens; 0 where a kernel keeps none."""
        if not self.scores_written_out:
            return 0
        return 2 * 4 * self.heads * tokens**2 * (1 if checkpointing else self.layers)

    def adapter_parameters(self, rank: int) -> int:
        return self.layers * rank * sum(a + b for a, b in self.linears)


def _sizes(linears: list[tuple[int, int]]) -> int:
    return sum(a * b for a, b in linears)


STATED = {
    "Qwen/Qwen2.5-Math-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, attention_bias=True),
    "Qwen/Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151936, tied=True, head_norms=True),
    "Qwen/Qwen3-8B": Shape(4096, 36, 32, 8, 128, 12288, 151936, head_norms=True),
    "Qwen/Qwen3-30B-A3B": Shape(2048, 48, 32, 4, 128, 768, 151936, head_norms=True, experts=128, experts_chosen=8),
    "google/gemma-3-1b-it": Shape(1152, 26, 4, 1, 256, 6912, 262144, tied=True, head_norms=True, norms=4),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": Shape(8192, 80, 64, 8, 128, 28672, 128256),
    "meta-llama/Llama-3.2-3B-Instruct": Shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
}
"""Shapes, from their config.json, of models that need not be on this machine."""
_HEAD_NORMS = ("qwen3", "gemma3")
_FOUR_NORMS = ("gemma2", "gemma3")


def shape_of(model: str) -> Shape:
    """The shape from the config.json of a model's folder, or from `STATED`.

    Raises:
        ConfigError: there is no such folder, or its config.json lacks a needed entry.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        if model in STATED:
            return STATED[model]
        raise ConfigError(
            f"model.path={model} is not a folder with a config.json, and none of {', '.join(STATED)}; give the model's folder"
        )
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kind = str(tree.get("model_type", ""))
    config: dict[str, Any] = {**tree, **tree.get("text_config", {})}
    experts = config.get("num_experts") or config.get("num_local_experts") or 0
    try:
        heads = config["num_attention_heads"]
        return Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config.get("moe_intermediate_size") or config["intermediate_size"]
            if experts
            else config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", kind.startswith("gemma"))),
            attention_bias=bool(config.get("attention_bias", kind == "qwen2")),
            head_norms=kind.startswith(_HEAD_NORMS),
            norms=4 if kind.startswith(_FOUR_NORMS) else 2,
            experts=experts,
            experts_chosen=config.get("num_experts_per_tok") or 0 if experts else 0,
            scores_written_out=bool(config.get("attn_logit_softcapping")) or kind == "gpt_oss",
        )
    except KeyError as error:
        raise ConfigError(f"{path} has no {error}; only decoders of attention and gated MLPs can be planned") from None
