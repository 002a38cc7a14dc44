"""The policy in training: a causal language model that computes the objective instead of logits."""

from typing import Any, cast

import torch
from torch import nn

from offsft.config.objective import Objective
from offsft.errors import ModelError
from offsft.fused_head import Anchor, HeadOutput, LogitTransform, fused_head, token_logprobs
from offsft.train.rows import Packed

_PROBE_TOKENS = 8
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15}
"""Largest difference of log-probs, nats, between a model's own logits and the head here."""
_PACKING_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest change of a row's hidden states, as a share of their norm, by what it is packed behind."""


class PolicyLoss(nn.Module):
    """Packed rows in, the objective's summed loss out; full logits never exist.

    `anchor`, the policy before training, is for objectives that need its whole distribution. It is whole on each
    rank, and not part of this module, so that nothing shards, trains or saves it.
    """

    def __init__(
        self, model: Any, objective: Objective, *, chunk_tokens: int | None = None, anchor: Any | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._anchor = (anchor,)
        transform = logit_transform(model)
        head = model.get_output_embeddings()
        _check_head(model, head, transform)
        _check_packing(model)

        # The head's own module computes the loss, so that whatever wraps modules applies to it: under ZeRO-3 its
        # weight has no data but between DeepSpeed's hooks around this call.
        def forward(hidden_PD: torch.Tensor, packed: Packed, anchor: Anchor | None, score: bool) -> Any:
            options = {"transform": transform, "chunk_tokens": chunk_tokens}
            if score:
                return token_logprobs(hidden_PD, head.weight, packed.targets_P, **options)
            out = fused_head(
                hidden_PD, head.weight, packed.targets_P, objective, packed.tokens, anchor=anchor, **options
            )
            return tuple(out)

        head.forward = forward
        self._coefficient = getattr(objective, "coefficient", 0.0)

    def forward(self, packed: Packed, *, score: bool = False) -> Any:
        """The fields of a `HeadOutput` of one packed micro-batch; where `score`, its targets' log-probs (P) alone."""
        anchor = None
        if self._anchor[0] is not None and not score:
            with torch.no_grad():
                head = self._anchor[0].get_output_embeddings()
                anchor = Anchor(_hidden(self._anchor[0], packed), head.weight, self._coefficient)
        return self.model.get_output_embeddings()(_hidden(self.model, packed), packed, anchor, score)


def loss_of(policy: Any, packed: Packed) -> HeadOutput:
    """Call the policy, or what DeepSpeed made of it."""
    return HeadOutput(*policy(packed))


def _hidden(model: Any, packed: Packed) -> torch.Tensor:
    """Hidden states (P, D) that predict the targets."""
    return _all_hidden(model, packed.input_ids_1T, packed.position_ids_1T)[packed.predicting_P]


def _all_hidden(model: Any, input_ids_1T: torch.Tensor, position_ids_1T: torch.Tensor) -> torch.Tensor:
    """Hidden states (T, D), before the head."""
    return model.base_model(input_ids=input_ids_1T, position_ids=position_ids_1T, use_cache=False).last_hidden_state[0]


def logit_transform(model: Any) -> LogitTransform:
    """What the model's configuration says it does to its logits: Gemma caps them, Cohere and Granite scale them."""
    settings = model.config.get_text_config()
    scale = getattr(settings, "logit_scale", None) or 1.0
    return LogitTransform(
        scale=float(scale) / float(getattr(settings, "logits_scaling", None) or 1.0),
        cap=getattr(settings, "final_logit_softcapping", None) or getattr(settings, "logits_soft_cap", None),
    )


@torch.no_grad()
def _check_head(model: Any, head: Any, transform: LogitTransform) -> None:
    """Compare with the model's own logits, once: an unknown treatment of logits must not train silently wrong.

    Raises:
        ModelError: naming the model's type.
    """
    kind = model.config.model_type
    if getattr(head, "bias", None) is not None:
        raise ModelError(f"{kind} has a bias on its head, which the fused head does not support; use another model")
    ids_1T = torch.arange(_PROBE_TOKENS, device=head.weight.device)[None] % model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    want_TV = model(input_ids=ids_1T, use_cache=False).logits[0].float().log_softmax(1)
    hidden_TD = model.base_model(input_ids=ids_1T, use_cache=False).last_hidden_state[0]
    model.train(was_training)
    got_T = token_logprobs(hidden_TD, head.weight, ids_1T[0], transform=transform)
    apart = float((got_T - want_TV.gather(1, ids_1T[0][:, None])[:, 0]).abs().max())
    if apart > _PROBE_TOLERANCE.get(cast(torch.dtype, head.weight.dtype), 0.15):
        raise ModelError(
            f"{kind} does something to its logits that the fused head does not know: log-probs differ by"
            f" {apart:.2g} nats; use another model, or report this one"
        )


@torch.no_grad()
def _check_packing(model: Any) -> None:
    """Compare a row packed behind another with the row alone, once: a state-space or linear-attention layer, or any
    that does not heed position ids, would let rows see each other without a word.

    Raises:
        ModelError: naming the model's type.
    """
    first = torch.arange(_PROBE_TOKENS, device=model.get_output_embeddings().weight.device)[None]
    first = first % model.config.get_text_config().vocab_size
    second = first.flip(1)
    was_training = model.training
    model.eval()
    alone_TD = _all_hidden(model, second, torch.arange(_PROBE_TOKENS, device=second.device)[None])
    positions = torch.arange(_PROBE_TOKENS, device=second.device).repeat(2)[None]
    packed_TD = _all_hidden(model, torch.cat([first, second], dim=1), positions)[_PROBE_TOKENS:]
    model.train(was_training)
    moved = float(((packed_TD - alone_TD).norm(dim=1) / alone_TD.norm(dim=1)).max())
    if moved > _PACKING_TOLERANCE.get(cast(torch.dtype, alone_TD.dtype), 0.1):  # not with weights that are not numbers
        raise ModelError(
            f"{model.config.model_type} lets packed rows see each other: behind another row, a row's hidden states"
            f" change by {moved:.0%}; use a model of attention layers alone"
        )
