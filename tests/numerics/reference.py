"""Every objective in float64 with full logits and autograd: slow, plain, and independent of the code under test."""

import torch


def reference_loss(settings, logits, targets, tokens, reference_logits=None):
    """Weighted sum of the losses (0-dim, differentiable) over T tokens with logits (T, V), all float64."""
    rows = torch.arange(len(targets))
    logprobs = logits.log_softmax(1)[rows, targets]
    probs = logprobs.exp()
    ref = None if tokens.reference_T is None else tokens.reference_T.double()
    match settings.kind:
        case "dft" | "prift" if settings.needs_reference:
            loss = -ref.exp() * logprobs
        case "power" if settings.frozen:
            loss = -(ref.exp() ** settings.exponent) * logprobs
        case "talr" if settings.frozen:
            loss = -(ref.exp() ** (1 / tokens.batch_loss)).clip(min=settings.floor) * logprobs
        case "eaft":
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
            most = settings.most_entropy or torch.tensor(float(logits.shape[1])).log()
            loss = -((entropy / most).clip(max=1) ** settings.exponent).detach() * logprobs
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
            exponent = 1 + idft_share(settings, tokens.progress) * (exponent - 1)
            weight = probs ** exponent.detach()
            loss = -(weight if settings.weight_gradient else weight.detach()) * logprobs
        case "talr":
            loss = -(probs ** (1 / tokens.batch_loss)).clip(min=settings.floor).detach() * logprobs
    if settings.kind == "asft":
        reference = reference_logits.softmax(1)
        divergence = (reference * (reference_logits.log_softmax(1) - logits.log_softmax(1))).sum(1)
        loss = loss + settings.coefficient * divergence
    return (tokens.weight_T.double() * loss).sum()


def idft_share(settings, progress):
    """Share of the free exponent: 0 while it is held at 1, 1 once it is free, linear in between."""
    if progress < settings.warmup:
        return 0.0
    if progress >= settings.warmup + settings.ramp:
        return 1.0
    return (progress - settings.warmup) / settings.ramp
