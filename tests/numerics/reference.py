"""Every objective in float64 with full logits and autograd: slow, plain, and written apart from the code under test."""

import torch


def reference_loss(settings, logits, targets, tokens, reference_logits=None):
    """Weighted sum of the losses (0-dim, differentiable) of T tokens with logits (T, V), all float64."""
    rows = torch.arange(len(targets))
    logprobs = logits.log_softmax(1)[rows, targets]
    probs = logprobs.exp()
    ref = None if tokens.reference_T is None else tokens.reference_T.double()
    match settings.kind:
        case "sft":
            loss = -logprobs
        case "dft" | "asft":
            loss = -probs.detach() * logprobs
        case "power":
            loss = (1 - probs**settings.exponent) / settings.exponent
        case "is":
            behavior = tokens.behavior_T.double().exp()
            loss = -torch.minimum(probs / behavior, torch.tensor(settings.cap).double()).detach() * logprobs
        case "iw_sft":
            loss = torch.zeros_like(logprobs)
            for row in set(tokens.row_T.tolist()):
                mine = tokens.row_T == row
                weight = torch.exp(settings.tau * (logprobs - ref)[mine].mean()).clip(0, settings.cap)
                loss = torch.where(mine, -weight.detach() * logprobs, loss)
        case "psft":
            ratio = probs / ref.exp()
            loss = -torch.minimum(ratio, ratio.clip(1 - 0.2, 1 + settings.high))
        case "kl":
            ratio = ref.exp() / probs
            loss = -logprobs + settings.coefficient * (ratio - 1 - ratio.log())
        case "idft":
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
            exponent = torch.exp(-(logprobs + entropy) / settings.beta)
            exponent = exponent.clip(settings.exponent_min, settings.exponent_max)
            loss = -(probs**exponent).detach() * logprobs
        case "talr":
            loss = -(probs ** (1 / tokens.batch_loss)).clip(min=settings.floor).detach() * logprobs
    if settings.kind == "asft":
        reference = reference_logits.softmax(1)
        divergence = (reference * (reference_logits.log_softmax(1) - logits.log_softmax(1))).sum(1)
        loss = loss + settings.coefficient * divergence
    return (tokens.weight_T.double() * loss).sum()
