"""A model's architecture in miniature: every kind of its layers, narrow, with random weights, from its configuration.

What can go wrong with an architecture shows in a few narrow layers: a state that crosses packed rows, a window that is
ignored, a logit transform that the head does not know. So a model can be checked in seconds, without its weights.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import torch

from offsft.errors import ModelError

WINDOW_TOKENS, SWITCH_TOKENS = 16, 48
"""Length of a miniature's windows and chunks, and that of rows at which its rotary positions switch."""
_WORDS = 256
_EXPERTS, _EXPERTS_CHOSEN = 4, 2
_MOST_PARAMETERS = 150_000_000
_SPREAD = 3.0
"""Factor on matrices: at their initial size attention is almost even, and what one layer does wrong hardly shows."""
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "decoder_layers")
_HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads",
    "num_key_value_heads", "num_kv_heads", "num_global_key_value_heads", "mamba_n_heads", "mamba_num_heads", "n_mamba_heads",
    "linear_num_key_heads", "linear_num_value_heads", "n_groups", "mamba_n_groups", "mamba_ngroups",
)  # fmt: skip
_STREAM = ("hidden_size", "d_model", "n_embd", "dim", "dim_model", "word_embed_proj_dim", "embedding_size", "lru_width")
"""Widths of what runs through all layers, which the heads divide."""
_INNER = (
    "intermediate_size", "ffn_dim", "d_ff", "n_inner", "dim_ff", "ffn_hidden_size", "expert_ffn_hidden_size", "block_ff_dim",
    "decoder_ffn_dim", "encoder_ffn_dim", "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
    "moe_shared_expert_intermediate_size", "intermediate_size_mlp", "mamba_intermediate_size", "moe_latent_size",
    "mamba_d_ssm", "attention_hidden_size",
)  # fmt: skip
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN_COUNTS = ("num_experts_per_tok", "moe_topk", "moe_top_k", "num_experts_per_token", "moe_k", "top_k_experts")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def build_miniature(config: Any) -> Any:
    """A causal language model of the configuration's architecture, in float32 and evaluation mode; seconds on a CPU.

    Raises:
        ModelError: no such model can be built; carries the reason that the architecture's own code gave.
    """
    reason = ""
    for shrink in _SHRINKINGS:
        for change in (_made_again, _changed_in_place):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return _build(change(config, shrink))
            except Exception as error:  # whatever a family's code raises for sizes that it was not written for
                reason = reason or f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    raise ModelError(f"{config.model_type} cannot be built as a small causal language model ({reason})")


def _build(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if sum(parameter.numel() for parameter in outline.parameters()) > _MOST_PARAMETERS:
        raise ValueError("even a few of its layers are large")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.mul_(_SPREAD)
                elif name.endswith("bias"):  # biases begin at 0, and so would what is done with them
                    parameter.normal_(std=0.1)
            model(input_ids=torch.arange(2)[None], use_cache=False)  # some families find out only here
    return model


def _narrow(heads: int, *, few_experts: bool) -> Callable[[dict[str, Any]], None]:
    def shrink(tree: dict[str, Any]) -> None:
        _cut_layers(tree)
        _cut_words(tree)
        _cut_widths(tree, heads)
        if few_experts:
            _cut_experts(tree)

    return shrink


def _few_words(tree: dict[str, Any]) -> None:
    _cut_layers(tree)
    _cut_words(tree)


_SHRINKINGS = (
    _narrow(2, few_experts=True),
    _narrow(4, few_experts=True),
    _narrow(2, few_experts=False),
    _few_words,
    lambda tree: _cut_layers(tree),
)
"""From the smallest on: the first that the architecture takes is used."""


def _made_again(config: Any, shrink: Callable[[dict[str, Any]], None]) -> Any:
    """A configuration made from the shrunk entries, so that what it derives from them fits."""
    tree = config.to_dict()
    for section in _sections(tree):
        shrink(section)
    return type(config).from_dict(tree)


def _changed_in_place(config: Any, shrink: Callable[[dict[str, Any]], None]) -> Any:
    """A copy with the shrunk entries set, for configurations that do not take their own entries back."""
    changed = copy.deepcopy(config)
    for part in [changed, *(value for value in vars(changed).values() if hasattr(value, "to_dict"))]:
        before = part.to_dict()
        after = copy.deepcopy(before)
        for section in _sections(after):
            shrink(section)
        for name, value in after.items():
            if value != before[name] and not isinstance(value, dict):
                setattr(part, name, value)
    return changed


def _sections(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration and those within it, of a text or a vision part, that have layers of their own."""
    if _count_layers(tree):
        yield tree
    for inner in tree.values():
        if isinstance(inner, dict):
            yield from _sections(inner)


def _count_layers(tree: dict[str, Any]) -> int:
    """The number of layers; of some hybrids, the length of the list of their kinds. 0 for what has none."""
    kinds = tree.get("layers_block_type")
    stated = next((tree[name] for name in _LAYERS if type(tree.get(name)) is int), 0)
    return stated or (len(kinds) if isinstance(kinds, list) else 0)


def _cut_layers(tree: dict[str, Any]) -> None:
    """Keep the first layers, as many as have every kind; and make windows, chunks and positions short."""
    total = _count_layers(tree)
    kept = min(total, max([2, *_layers_needed(tree, total)]))
    for key, value in tree.items():
        if _is_by_layer(key, value, total):
            tree[key] = value[:kept]
        elif _is_list_of_layers(key, value, total):
            tree[key] = [number for number in value if number < kept]
        elif isinstance(value, dict) and value and all(str(each).isdigit() for each in value):
            tree[key] = {number: each for number, each in value.items() if int(number) < kept}
    for key in _LAYERS:
        if tree.get(key) == total:
            tree[key] = kept
    _shorten(tree)


def _layers_needed(tree: dict[str, Any], total: int) -> Iterator[int]:
    for key, value in tree.items():
        if _is_by_layer(key, value, total):
            kinds = [str(each) for each in value]
            yield max(kinds.index(kind) for kind in set(kinds)) + 1
        elif _is_list_of_layers(key, value, total):
            yield min(value) + 1
        elif type(value) is int and 0 < value < total:
            if any(word in key for word in ("period", "interval", "pattern")):
                yield value
            elif key in ("first_k_dense_replace", "num_dense_layers"):
                yield value + 1


def _is_by_layer(key: str, value: Any, total: int) -> bool:
    named = isinstance(value, str) and "pattern" in key
    return (named or (isinstance(value, list) and not key.endswith("_id"))) and len(value) == total > 2


def _is_list_of_layers(key: str, value: Any, total: int) -> bool:
    named = any(word in key for word in ("layer", "idx", "indices"))
    numbers = isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
    return named and numbers and 1 < max(value) < total


def _shorten(tree: dict[str, Any]) -> None:
    for key, value in list(tree.items()):
        if type(value) is int and value > 0 and ("window" in key or "chunk" in key or key == "block_size"):
            tree[key] = min(value, WINDOW_TOKENS)
        elif key == "original_max_position_embeddings" and type(value) is int:
            tree[key] = min(value, SWITCH_TOKENS)
        elif key in _POSITIONS and type(value) is int:
            # Dynamic rotary positions switch where the model's own positions end.
            tree[key] = min(value, SWITCH_TOKENS if _is_dynamic(tree) else 16 * SWITCH_TOKENS)
        elif isinstance(value, dict) and key.startswith("rope"):
            _shorten(value)


def _is_dynamic(tree: dict[str, Any]) -> bool:
    rope = tree.get("rope_parameters") or tree.get("rope_scaling") or {}
    return isinstance(rope, dict) and "dynamic" in (rope.get("rope_type"), rope.get("type"))


def _cut_words(tree: dict[str, Any]) -> None:
    for key, value in tree.items():
        if "vocab" in key and type(value) is int:
            tree[key] = min(value, _WORDS)
        elif key.endswith(("_token_id", "_token_index")) and type(value) is int and value >= _WORDS:
            tree[key] = _WORDS - 1
        elif key.endswith("_token_id") and isinstance(value, list):
            tree[key] = [min(each, _WORDS - 1) for each in value]


def _cut_widths(tree: dict[str, Any], heads: int) -> None:
    """Leave this many heads, and a width of as many times a head's size, which stays as it is."""
    own = next((tree[name] for name in _HEADS if type(tree.get(name)) is int), 0)
    stream = next((tree[name] for name in _STREAM if type(tree.get(name)) is int), 0)
    share = Fraction(heads, own) if own > heads else Fraction(1) if own else Fraction(64, max(64, stream))
    for key, value in tree.items():
        if key in _INNER and isinstance(value, list) and all(type(each) is int for each in value):
            tree[key] = [_round_up(each * share) for each in value]
        if type(value) is not int:
            continue
        if key in _HEADS:
            tree[key] = max(1, int(value * share))
        elif key in _STREAM:
            small = value * share
            # Where a head's size is given, the stream may be any; kernels want multiples of 16.
            tree[key] = _round_up(small) if type(tree.get("head_dim")) is int or small.denominator > 1 else int(small)
        elif key in _INNER:
            tree[key] = _round_up(value * share)


def _round_up(width: Fraction) -> int:
    return -(-max(16, int(width)) // 16) * 16


def _cut_experts(tree: dict[str, Any]) -> None:
    for key, value in tree.items():
        if type(value) is not int:
            continue
        if key in _EXPERT_COUNTS:
            tree[key] = min(value, _EXPERTS)
        elif key in _CHOSEN_COUNTS:
            tree[key] = min(value, _EXPERTS_CHOSEN)
        elif key in ("n_group", "topk_group"):
            tree[key] = 1
