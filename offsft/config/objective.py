"""Settings of the training objectives, one class each. Formulas and sources: `offsft.losses.objectives`.

Each class declares what its objective needs in addition to the log-probs of the policy in training, so that a run can
prepare it before a model is loaded.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from offsft.config.base import Strict


class _Objective(Strict):
    @property
    def needs_reference(self) -> bool:
        """Whether it needs the targets' log-probs under the policy before training; computed once, kept in the run's folder."""
        return False

    @property
    def reference_steps(self) -> int:
        """Steps after which the targets' log-probs are recomputed with the policy in training; 0: never."""
        return 0

    needs_behavior: ClassVar[bool] = False
    """Whether it needs the targets' log-probs as they were sampled; expert rows have none."""
    needs_entropy: ClassVar[bool] = False
    """Whether it needs the entropy of the policy's distribution at each token."""
    needs_whole_rows: ClassVar[bool] = False
    """Whether the weight of a token depends on its whole row: the head computes all log-probs before any gradient."""
    needs_batch_loss: ClassVar[bool] = False
    """Whether the weight depends on the whole global batch: its rows are scored once more before each step."""
    needs_anchor: ClassVar[bool] = False
    """Whether the policy before training computes its full distribution alongside the policy in training."""


class Sft(_Objective):
    """-log p: plain maximum likelihood."""

    kind: Literal["sft"] = "sft"


class _Freezable(_Objective):
    frozen: bool = False
    """Take the weights from the policy before training instead of the one in training (arXiv 2606.09396)."""

    @property
    def needs_reference(self) -> bool:
        return self.frozen


class Dft(_Freezable):
    """-sg(p) log p (arXiv 2508.05629)."""

    kind: Literal["dft"] = "dft"


class Power(_Freezable):
    """(1 - p^a) / a (arXiv 2510.00526)."""

    kind: Literal["power"] = "power"
    exponent: float = Field(default=0.5, gt=0, le=10)
    """a: 1 gives DFT's gradient, the limit at 0 is SFT."""


class Is(_Objective):
    """-sg(min(p/q, cap)) log p with q of the behaviour policy."""

    kind: Literal["is"] = "is"
    needs_behavior: ClassVar[bool] = True
    cap: float = Field(default=2.0, gt=0)
    """Upper bound on the importance ratio; larger ones are clipped to it."""


class IwSft(_Objective):
    """-sg(w) log p with one weight per sequence (arXiv 2507.12856)."""

    kind: Literal["iw_sft"] = "iw_sft"
    needs_whole_rows: ClassVar[bool] = True
    tau: float = Field(default=1.0, gt=0)
    """Factor on a sequence's mean log-ratio."""
    cap: float = Field(default=16.0, gt=0)
    """Upper bound on the weight; larger ones are clipped to it."""

    @property
    def needs_reference(self) -> bool:
        return True


class Psft(_Objective):
    """-min(r, 1 + high), r = p/p_ref (arXiv 2508.17784)."""

    kind: Literal["psft"] = "psft"
    high: float = Field(default=0.28, gt=0)
    """How far above 1 the ratio may go before its gradient is cut off."""
    refresh_steps: int = Field(default=8, ge=0)
    """Steps after which p_ref becomes the policy in training (its authors: 8 updates); 0 keeps the policy before training."""

    @property
    def needs_reference(self) -> bool:
        return self.refresh_steps == 0

    @property
    def reference_steps(self) -> int:
        return self.refresh_steps


class Kl(_Objective):
    """-log p + b k3(p, p_ref): the KL-penalty baseline."""

    kind: Literal["kl"] = "kl"
    coefficient: float = Field(default=0.1, ge=0)
    """b: weight of the penalty."""

    @property
    def needs_reference(self) -> bool:
        return True


class Asft(_Objective):
    """DFT + l KL(p_ref || p) over the whole vocabulary (arXiv 2509.23753)."""

    kind: Literal["asft"] = "asft"
    needs_anchor: ClassVar[bool] = True
    coefficient: float = Field(default=0.05, ge=0)
    """l: weight of the divergence; its authors use 0.05 to 0.1."""


class Idft(_Objective):
    """-p^sg(g) log p, g = clip(exp(-(log p + H) / beta)), after a share of the steps with g = 1 (arXiv 2602.12222)."""

    kind: Literal["idft"] = "idft"
    needs_entropy: ClassVar[bool] = True
    beta: float = Field(default=1.0, gt=0)
    """Scale of the centred log-likelihood, nats."""
    exponent_min: float = Field(default=0.1, ge=0)
    """Smallest exponent: for tokens that the policy finds more likely than most of its own."""
    exponent_max: float = Field(default=2.0, gt=0)
    """Largest exponent: for tokens far outside the policy's distribution."""
    warmup: float = Field(default=0.2, ge=0, le=1)
    """Share of all steps in which the exponent is 1; its authors use 0.2."""
    ramp: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps, after the warm-up, over which it moves from 1 to g; its authors use 0.1."""
    weight_gradient: bool = True
    """Whether the gradient also flows through p^g, as in its authors' code; else only through log p, as in DFT."""


class Eaft(_Objective):
    """-sg((H / H_max)^a) log p, H the policy's entropy (arXiv 2601.02151)."""

    kind: Literal["eaft"] = "eaft"
    needs_entropy: ClassVar[bool] = True
    exponent: float = Field(default=1.0, gt=0)
    """a: how strongly tokens of which the policy is certain are down-weighted."""
    most_entropy: float | None = Field(default=None, gt=0)
    """H_max, nats, above which the weight stays 1; unset: the logarithm of the vocabulary size. Its authors use 3, about log 20."""


class Prift(_Objective):
    """-sg(p_ref) log p (arXiv 2606.09396)."""

    kind: Literal["prift"] = "prift"

    @property
    def needs_reference(self) -> bool:
        return True


class Talr(_Freezable):
    """-sg(max(p^(1/tau), floor)) log p, tau = median loss of the batch's rows (arXiv 2509.20758)."""

    kind: Literal["talr"] = "talr"
    needs_batch_loss: ClassVar[bool] = True
    floor: float = Field(default=0.01, ge=0, le=1)
    """Smallest weight, so that no token is lost for good."""


Objective = Annotated[
    Sft | Dft | Power | Is | IwSft | Psft | Kl | Asft | Idft | Eaft | Prift | Talr,
    Field(discriminator="kind"),
]
