"""Settings of the training objectives, one class each. Formulas and sources: `offsft.objectives`.

What an objective must know beside the log-probs of the policy in training is said here, so that a run can prepare it
before a model is loaded.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from offsft.strict import Strict


class _Objective(Strict):
    needs_reference: ClassVar[bool] = False
    """Log-probs of the targets under the policy before training; computed once, kept in the run's folder."""
    needs_behavior: ClassVar[bool] = False
    """Log-probs of the targets as they were sampled; expert rows have none."""
    needs_entropy: ClassVar[bool] = False
    """Entropy of the policy's distribution at each token."""
    needs_whole_rows: ClassVar[bool] = False
    """The weight of a token depends on its whole row: the head computes all log-probs before any gradient."""
    needs_batch_loss: ClassVar[bool] = False
    """The weight depends on the whole global batch: its rows are scored once more before each step."""
    needs_anchor: ClassVar[bool] = False
    """The policy before training computes its whole distribution beside the policy in training."""


class Sft(_Objective):
    """-log p: plain maximum likelihood."""

    kind: Literal["sft"] = "sft"


class Dft(_Objective):
    """-sg(p) log p (arXiv 2508.05629)."""

    kind: Literal["dft"] = "dft"


class Power(_Objective):
    """(1 - p^a) / a (arXiv 2510.00526)."""

    kind: Literal["power"] = "power"
    exponent: float = Field(default=0.5, gt=0, le=10)
    """a: 1 has DFT's gradient, towards 0 it becomes SFT."""


class Is(_Objective):
    """-sg(min(p/q, cap)) log p with the behaviour's q."""

    kind: Literal["is"] = "is"
    needs_behavior: ClassVar[bool] = True
    cap: float = Field(default=2.0, gt=0)
    """Largest importance ratio; larger ones count as this."""


class IwSft(_Objective):
    """-sg(w) log p with one weight a sequence (arXiv 2507.12856)."""

    kind: Literal["iw_sft"] = "iw_sft"
    needs_reference: ClassVar[bool] = True
    needs_whole_rows: ClassVar[bool] = True
    tau: float = Field(default=1.0, gt=0)
    """Factor on a sequence's mean log-ratio."""
    cap: float = Field(default=16.0, gt=0)
    """Largest weight; larger ones count as this."""


class Psft(_Objective):
    """-min(r, 1 + high), r = p/p_ref (arXiv 2508.17784)."""

    kind: Literal["psft"] = "psft"
    needs_reference: ClassVar[bool] = True
    high: float = Field(default=0.28, gt=0)
    """How far above 1 the ratio may go before its gradient ends."""


class Kl(_Objective):
    """-log p + b k3(p, p_ref): the KL-penalty baseline."""

    kind: Literal["kl"] = "kl"
    needs_reference: ClassVar[bool] = True
    coefficient: float = Field(default=0.1, ge=0)
    """b: weight of the penalty."""


class Asft(_Objective):
    """DFT + l KL(p_ref || p) over the whole vocabulary (arXiv 2509.23753)."""

    kind: Literal["asft"] = "asft"
    needs_anchor: ClassVar[bool] = True
    coefficient: float = Field(default=0.05, ge=0)
    """l: weight of the divergence; its authors use 0.05 to 0.1."""


class Idft(_Objective):
    """-sg(p^g) log p, g = clip(exp(-(log p + H) / beta)) (arXiv 2602.12222)."""

    kind: Literal["idft"] = "idft"
    needs_entropy: ClassVar[bool] = True
    beta: float = Field(default=1.0, gt=0)
    """Scale of the centred log-likelihood, nats."""
    exponent_min: float = Field(default=0.1, ge=0)
    """Smallest exponent: of tokens that the policy expects more than most of its own."""
    exponent_max: float = Field(default=2.0, gt=0)
    """Largest exponent: of tokens far outside the policy's distribution."""


class Talr(_Objective):
    """-sg(max(p^(1/tau), floor)) log p, tau = median loss of the batch's rows (arXiv 2509.20758)."""

    kind: Literal["talr"] = "talr"
    needs_batch_loss: ClassVar[bool] = True
    floor: float = Field(default=0.01, ge=0, le=1)
    """Smallest weight, so that no token is lost for good."""


Objective = Annotated[
    Sft | Dft | Power | Is | IwSft | Psft | Kl | Asft | Idft | Talr,
    Field(discriminator="kind"),
]
