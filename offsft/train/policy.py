"""The policy in training: a causal language model that computes the objective instead of logits."""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from offsft.config.objective import Objective
from offsft.errors import ModelError
from offsft.losses.fused_head import Anchor, HeadOutput, fused_head, token_logprobs
from offsft.losses.logits import LogitTransform
from offsft.train.attention import attend_by_row, run_alone, run_packed
from offsft.train.dropout import turn_off_dropout
from offsft.train.router import router_loss
from offsft.train.rows import Packed, Row, pack

_PROBE_TOKENS = (24, 17)
"""Lengths of the rows that a model is tried with before its first step."""
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15}
"""Largest difference of log-probs, nats, between a model's own logits and the head here."""
_PACKING_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest change of a row's hidden states, as a share of their norm, by what it is packed behind."""


class PolicyLoss(nn.Module):
    """Packed rows in, the objective's summed loss out; full logits never exist.

    `anchor`, the policy before training, is for objectives that need its whole distribution. Each rank holds all of it,
    and it is not part of this module, so that nothing shards, trains or saves it. `router_weight` is the weight of the
    loss that balances a mixture's experts; None for the model's own. Without `packed`, each call has one row, which the
    model sees as it would alone. If `check` is off, the caller must call the method `check` once the weights can be used.

    Raises:
        ModelError: the model cannot be trained here; names its type.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        *,
        chunk_tokens: int | None = None,
        split: bool = False,
        anchor: Any | None = None,
        dropout: bool = False,
        router_weight: float | None = 0.0,
        packed: bool = True,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.packed = packed
        self._anchor = (anchor,)
        self._dropout = dropout
        self._router_loss = router_loss(model, router_weight)
        transform = logit_transform(model)
        head = model.get_output_embeddings()
        own_forward = head.forward

        # The head's own module computes the loss, so that hooks on modules apply to it: under ZeRO-3 its weight has
        # data only between DeepSpeed's hooks around this call. Without rows it still returns logits.
        def forward(
            hidden_PD: torch.Tensor, packed: Packed | None = None, anchor: Anchor | None = None, score: bool = False
        ) -> Any:
            if packed is None:
                return own_forward(hidden_PD)
            hidden_PD, weight_VD = _with_bias(hidden_PD, head)
            options = {"transform": transform, "chunk_tokens": chunk_tokens, "split": split}
            if score:
                return token_logprobs(hidden_PD, weight_VD, packed.targets_P, **options)
            out = fused_head(hidden_PD, weight_VD, packed.targets_P, objective, packed.tokens, anchor=anchor, **options)
            return tuple(out)

        head.forward = forward
        self._coefficient = getattr(objective, "coefficient", 0.0)
        if check:
            self.check()

    def check(self) -> None:
        """Choose the attention, compare the head with the model's own logits, and a packed row with the row alone.

        Collective.

        Raises:
            ModelError: they differ; names the model's type.
        """
        self.choose_attention()
        _check_head(self)
        if self.packed:
            _check_packing(self)

    def choose_attention(self) -> None:
        """Let the model attend row by row, where that is what its own attention computes. Collective."""
        for model in filter(None, (self.model, *self._anchor)):
            attend_by_row(model, _PACKING_TOLERANCE.get(model.dtype, 0.1), packed=self.packed)

    def train(self, mode: bool = True) -> "PolicyLoss":
        """As for any module, except that without dropout the model computes in training as it does in sampling."""
        super().train(mode)
        if mode and not self._dropout:
            turn_off_dropout(self.model)
        return self

    def forward(self, packed: Packed, *, score: bool = False) -> Any:
        """The `HeadOutput` fields of a packed micro-batch, then the router loss (0-dim; 0 if there is none).

        With `score`, only the log-probs (P) of its targets.
        """
        anchor = None
        if self._anchor[0] is not None and not score:
            with torch.no_grad():
                head = self._anchor[0].get_output_embeddings()
                anchor = Anchor(*_with_bias(self.hidden(self._anchor[0], packed), head), self._coefficient)
        if score or self._router_loss is None:
            hidden_PD, balance = self.hidden(self.model, packed), None
        else:
            out = self._run(self.model, packed, output_router_logits=True)
            hidden_PD, balance = out.last_hidden_state[0][packed.predicting_P], self._router_loss(out.router_logits)
        found = self.model.get_output_embeddings()(hidden_PD, packed, anchor, score)
        if score:
            return found
        return *found, found[0].new_zeros(()) if balance is None else balance

    def hidden(self, model: Any, packed: Packed) -> torch.Tensor:
        """Hidden states (P, D) that predict the targets."""
        return self._run(model, packed).last_hidden_state[0][packed.predicting_P]

    def _run(self, model: Any, packed: Packed, **options: Any) -> Any:
        """The output of a model below its head. A single row comes without positions, which not all families take."""
        if not self.packed:
            return run_alone(model, packed.input_ids_1T, **options)
        return run_packed(model, packed.input_ids_1T, packed.position_ids_1T, packed.lengths, **options)


class PolicyOutput(NamedTuple):
    """Output of one micro-batch: the objective's summed loss with its metrics' inputs, and the router's mean loss."""

    head: HeadOutput
    router_loss: torch.Tensor


def run_policy(policy: Any, packed: Packed) -> PolicyOutput:
    """Call the policy, or the DeepSpeed engine around it."""
    *head, balance = policy(packed)
    return PolicyOutput(HeadOutput(*head), balance)


def loss_of(policy: Any, packed: Packed) -> HeadOutput:
    """The objective's part of a policy's output."""
    return run_policy(policy, packed).head


def _with_bias(hidden_PD: torch.Tensor, head: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and a head's weight, with a bias of the head as one more column: each state gets a 1 for it."""
    bias_V = getattr(head, "bias", None)
    if bias_V is None:
        return hidden_PD, head.weight
    ones_P1 = hidden_PD.new_ones(len(hidden_PD), 1)
    return torch.cat([hidden_PD, ones_P1], 1), torch.cat([head.weight, bias_V[:, None]], 1)


def logit_transform(model: Any) -> LogitTransform:
    """The logit transform in the model's configuration: Gemma caps its logits, Cohere and Granite scale them."""
    settings = model.config.get_text_config()
    scale = getattr(settings, "logit_scale", None) or 1.0
    return LogitTransform(
        scale=float(scale) / float(getattr(settings, "logits_scaling", None) or 1.0),
        cap=getattr(settings, "final_logit_softcapping", None) or getattr(settings, "logits_soft_cap", None),
    )


@torch.no_grad()
def _check_head(policy: PolicyLoss) -> None:
    """Compare with the model's own logits, once: an unknown logit transform must not silently train wrong.

    Raises:
        ModelError: they differ; names the model's type.
    """
    model, head = policy.model, policy.model.get_output_embeddings()
    packed = pack(_probe_rows(model), [0]).to(head.weight.device)
    was_training = model.training
    model.eval()
    logits_TV = model(input_ids=packed.input_ids_1T, use_cache=False).logits[0]
    want_PV = logits_TV[packed.predicting_P].float().log_softmax(1)
    got_P = policy(packed, score=True)
    model.train(was_training)
    apart = float((got_P - want_PV.gather(1, packed.targets_P[:, None])[:, 0]).abs().max())
    if math.isnan(apart):
        raise ModelError(
            f"the log-probs of this {model.config.model_type} are not numbers: its weights hold NaN or infinity, or"
            f" overflow in {str(head.weight.dtype).removeprefix('torch.')}; fetch the model again, or set model.dtype=float32"
        )
    if apart > _PROBE_TOLERANCE.get(cast(torch.dtype, head.weight.dtype), 0.15):
        raise ModelError(
            f"{model.config.model_type} does something to its logits that the fused head does not know: log-probs differ by"
            f" {apart:.2g} nats; use another model, or report this one"
        )


@torch.no_grad()
def _check_packing(policy: PolicyLoss) -> None:
    """Compare a row packed behind another with the row alone, once.

    A state-space or linear-attention layer, or any that ignores position ids, would silently let rows see each other.

    Raises:
        ModelError: they differ; names the model's type.
    """
    model, rows = policy.model, _probe_rows(policy.model)
    device = model.get_output_embeddings().weight.device
    was_training = model.training
    model.eval()
    alone_PD = policy.hidden(model, pack(rows, [1]).to(device))
    packed_PD = policy.hidden(model, pack(rows, [0, 1]).to(device))[-len(alone_PD) :]
    model.train(was_training)
    moved = float(((packed_PD - alone_PD).norm(dim=1) / alone_PD.norm(dim=1)).max())
    if not moved <= _PACKING_TOLERANCE.get(cast(torch.dtype, alone_PD.dtype), 0.1):  # also where it is NaN
        raise ModelError(
            f"{model.config.model_type} lets packed rows see each other: behind another row, a row's hidden states"
            f" change by {moved:.0%}, which its small copy did not do; report this model"
        )


def _probe_rows(model: Any) -> list[Row]:
    """Two rows of random ids, the same on every rank."""
    words = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(words, (length,), generator=draw).tolist() for length in _PROBE_TOKENS]
    return [Row(f"probe-{number}", "self", each[:1], each[1:]) for number, each in enumerate(ids)]
