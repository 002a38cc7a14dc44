"""Settings of the training objectives, one class each. Formulas and sources: `offsft.objectives`."""

from typing import Annotated, Literal

from pydantic import Field

from offsft.strict import Strict


class Sft(Strict):
    """-log p: plain maximum likelihood."""

    kind: Literal["sft"] = "sft"


class Dft(Strict):
    """-sg(p) log p (arXiv 2508.05629)."""

    kind: Literal["dft"] = "dft"


Objective = Annotated[Sft | Dft, Field(discriminator="kind")]
