"""Attention of packed rows: each row attends to itself alone, and nothing is computed between rows.

transformers keeps packed rows apart by a mask over the whole sequence, and computes what the mask then throws away: of
eight rows of equal length, seven eighths. Here each row is a block of its own. The model calls `attend_to_rows` through
transformers' attention interface, and the rows' lengths come with the call. `mask_of_rows` takes the place of the mask:
it keeps transformers' rule of who attends to whom, and makes a mask only for a row that is not plainly causal.

Three ways lead to the same numbers. On GPUs, torch's variable-length flash attention runs all rows in one kernel. On
CPUs and in float32, torch's attention runs row by row. For models that cap their scores or have attention sinks, the
sums are written out, row by row: torch's attention knows neither, and transformers' use of it leaves caps out.

T = tokens of all rows, R = rows, L = tokens of one row, H = heads, K = heads of keys and values, D = size of a head.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional

NAME = "offsft_rows"
"""Name of this attention in transformers' interface."""
_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_FLASH_DIM = 256
"""Largest size of a head that flash attention takes."""
_PROBE = (7, 9)
"""Lengths of the rows with which this attention is compared with a model's own."""


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Lengths of the rows that are packed into one sequence: on the host, and as the rows' ends on the device."""

    lengths: tuple[int, ...]
    ends: torch.Tensor
    """0, then the sum of the lengths up to and with each row: (R + 1), int32."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "RowLengths":
        # A row without tokens, which a cut can leave, is no block.
        lengths = tuple(length for length in lengths if length)
        return cls(lengths, torch.tensor([0, *lengths]).cumsum(0).to(torch.int32))

    def to(self, device: torch.device | str) -> "RowLengths":
        """The same lengths with their ends on a device."""
        return RowLengths(self.lengths, self.ends.to(device))

    def arguments(self) -> dict[str, Any]:
        """The arguments of a model's call that carry the lengths: ours, and transformers' own for flash attention."""
        longest = max(self.lengths)
        ends = {"cu_seq_lens_q": self.ends, "cu_seq_lens_k": self.ends}
        return {"rows": self, **ends, "max_length_q": longest, "max_length_k": longest}


@dataclass(frozen=True, slots=True)
class RowMask:
    """Who attends to whom in one packed sequence, as a rule: masks are made row by row, and only where needed."""

    rule: Callable[..., torch.Tensor]
    """transformers' rule, from indices of batch, head, query and key to whether the key is attended to."""
    window: int | None
    """Tokens that a token attends to, itself included; None for all before it."""
    causal: bool
    """Whether the rule is causality within the window and within the row, and nothing else."""
    arguments: Mapping[str, Any]
    """What transformers would make the mask with."""
    _made: dict[tuple[int, int] | None, torch.Tensor | None] = field(default_factory=dict)

    def of(self, start: int, length: int) -> torch.Tensor | None:
        """The mask (1, 1, L, L) of the row that starts there; None if it is plainly causal."""
        if self.causal and (self.window is None or length <= self.window):
            return None
        place = {"q_length": length, "kv_length": length, "q_offset": start, "kv_offset": start}
        return self._make((start, length), place | {"allow_is_causal_skip": False})

    def whole(self) -> torch.Tensor | None:
        """The mask (1, 1, T, T) of the whole sequence, which keeps rows apart; None if it is plainly causal."""
        return self._make(None, {})

    def _make(self, key: tuple[int, int] | None, arguments: dict[str, Any]) -> torch.Tensor | None:
        """All layers of a kind share this object, so each mask is made once in a forward pass."""
        from transformers.masking_utils import sdpa_mask

        if key not in self._made:
            self._made[key] = sdpa_mask(mask_function=self.rule, **{**self.arguments, **arguments})
        return self._made[key]


def mask_of_rows(*, mask_function: Callable[..., torch.Tensor], **arguments: Any) -> RowMask | torch.Tensor | None:
    """transformers' mask function for this attention; what is not one packed sequence gets a mask as usual."""
    from transformers.masking_utils import sdpa_mask

    one_sequence = arguments["batch_size"] == 1 and arguments["q_length"] == arguments["kv_length"]
    if arguments.get("attention_mask") is not None or not one_sequence:
        return sdpa_mask(mask_function=mask_function, **arguments)
    # transformers marks a rule of a model's own by `use_vmap`, and one that looks ahead by `allow_is_bidirectional_skip`.
    causal = not arguments.get("use_vmap") and "allow_is_bidirectional_skip" not in arguments
    return RowMask(mask_function, arguments.get("local_size"), causal, arguments)


def attend_to_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: RowMask | torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    rows: RowLengths | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention's output, (B, T, H, D), from queries (B, H, T, D) and keys and values (B, K, T, D).

    `s_aux` (H) are the scores of the heads' attention sinks. Without `rows`, all tokens are one block under their whole
    mask: a model that does not hand its arguments on is slower, not wrong.
    """
    packed = attention_mask if isinstance(attention_mask, RowMask) else None
    own_sums = bool(softcap) or s_aux is not None
    if packed and rows and not own_sums and not dropout and _runs_flash(query, value, packed):
        return _flash(query, key, value, scaling, packed.window, rows), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        # Repeated once for all rows: on CPUs, torch's own sharing of keys and values takes twice the time.
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    lengths, masks = _blocks(attention_mask, rows, query.shape[2])
    found = []
    split = (each.split(lengths, 2) for each in (query, key, value))
    for q, k, v, mask in zip(*split, masks, strict=True):
        causal = mask is None and getattr(module, "is_causal", True)
        if own_sums:
            found.append(_write_out(q, k, v, mask, causal, scaling, dropout, softcap, s_aux))
        else:
            options = {"dropout_p": dropout, "is_causal": causal, "scale": scaling}
            found.append(functional.scaled_dot_product_attention(q, k, v, mask, **options))
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


def _blocks(
    mask: RowMask | torch.Tensor | None, rows: RowLengths | None, tokens: int
) -> tuple[Sequence[int], list[torch.Tensor | None]]:
    """The lengths of the blocks that are computed one by one, and their masks; None for a plainly causal block."""
    if not isinstance(mask, RowMask):
        return (tokens,), [mask]
    if rows is None:
        return (tokens,), [mask.whole()]
    starts = accumulate(rows.lengths, initial=0)
    return rows.lengths, [mask.of(start, length) for start, length in zip(starts, rows.lengths, strict=False)]


def _write_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention (B, H, L, D) with capped scores and sinks, by its definition; softmax in float32."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1)
    shares = scores.softmax(-1, dtype=torch.float32)[..., : key.shape[2]]
    return functional.dropout(shares, dropout, training=dropout > 0).to(value.dtype) @ value


def _runs_flash(query: torch.Tensor, value: torch.Tensor, mask: RowMask) -> bool:
    size = query.shape[-1]
    fits = size == value.shape[-1] and size <= _FLASH_DIM and size % 8 == 0
    return query.is_cuda and query.dtype in _FLASH_DTYPES and fits and mask.causal and query.shape[0] == 1


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    rows: RowLengths,
) -> torch.Tensor:
    """All rows in one kernel: (1, T, H, D). Flash attention counts the tokens before a token, not the token itself."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(rows.lengths)
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    groups, options = query.shape[1] // key.shape[1], {}
    if "enable_gqa" in signature(varlen_attn).parameters:
        options["enable_gqa"] = groups > 1
    elif groups > 1:  # torch before 2.13
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    found = varlen_attn(
        query,
        key,
        value,
        rows.ends,
        rows.ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **options,
    )
    assert isinstance(found, torch.Tensor)
    return found[None]


@torch.no_grad()
def attend_by_row(model: Any, tolerance: float, *, packed: bool = True) -> bool:
    """Give the model this attention, if packed rows then have the hidden states that each has alone in its own.

    Compared once, with the model's written-out attention; without `packed`, on rows that are alone. A model whose
    attention has a part that is not known here, or that does not go through transformers' interface, keeps its own, or
    where that leaves something out, the written-out one. `tolerance` is a share of the largest norm of a hidden state.
    Collective where the weights are sharded.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend_to_rows)
    AttentionMaskInterface.register(NAME, mask_of_rows)
    if not model._can_set_attn_implementation():
        return False
    own, was_training = model.config._attn_implementation, model.training
    model.eval()
    model.set_attn_implementation("eager")
    alone_TD = torch.cat([_probe(model, [length], packed=packed) for length in _PROBE])
    # A share of the largest norm, not of each: the embedding of a padding token, which the probe may hold, is zero.
    allowed = tolerance * alone_TD.norm(dim=1).max()
    chosen = own
    for name in (NAME, own, "eager"):
        model.set_attn_implementation(name)
        groups = [_PROBE] if packed else [[length] for length in _PROBE]
        try:
            found_TD = torch.cat([_probe(model, lengths, packed=packed) for lengths in groups])
        except (TypeError, AttributeError, IndexError):
            if name != NAME:
                raise
            continue  # the model's code looks into its mask, and a rule is none
        if bool((found_TD - alone_TD).norm(dim=1).max() <= allowed):
            chosen = name
            break
    model.set_attn_implementation(chosen)
    model.train(was_training)
    return chosen == NAME


def _probe(model: Any, lengths: Sequence[int], *, packed: bool) -> torch.Tensor:
    """Hidden states (T, D) of packed rows of these lengths; a row holds the same tokens whatever is packed with it."""
    rows = RowLengths.of(lengths).to(model.get_input_embeddings().weight.device)
    positions = torch.cat([torch.arange(length, device=rows.ends.device) for length in lengths])
    ids = torch.cat([(1 + length * torch.arange(length, device=rows.ends.device)) for length in lengths])
    ids = ids % model.config.get_text_config().vocab_size
    if packed:
        return run_packed(model, ids[None], positions[None], rows).last_hidden_state[0].float()
    return run_alone(model, ids[None]).last_hidden_state[0].float()


def run_packed(
    model: Any, input_ids_1T: torch.Tensor, position_ids_1T: torch.Tensor, lengths: RowLengths, **options: Any
) -> Any:
    """The output of a model below its head for packed rows, with whatever attention it has."""
    return body_of(model)(
        input_ids=input_ids_1T, position_ids=position_ids_1T, use_cache=False, **lengths.arguments(), **options
    )


def run_alone(model: Any, input_ids_1T: torch.Tensor, **options: Any) -> Any:
    """The output of a model below its head for a single row, with no word of positions, which not all families take."""
    return body_of(model)(input_ids=input_ids_1T, use_cache=False, **options)


def body_of(model: Any) -> Any:
    """The part of a model below its head; also of the families whose own name for it leads elsewhere."""
    body = model.base_model
    if body is not model:
        return body
    head = model.get_output_embeddings()
    inner = [part for part in model.children() if hasattr(part, "config") and part is not head]
    return inner[0] if len(inner) == 1 else body
