"""Every setting of a run: strict, frozen, bounded. A recipe is one `Recipe` in YAML (read by `offsft.recipes`).

The docstring below a field is its documentation (`--help` prints it): what it does and its unit.
"""

from offsft.config.cluster import Cluster
from offsft.config.compare import Arm, Compare, Gap, GapSide
from offsft.config.data import Data, Fields, ProblemRows
from offsft.config.domain import Domain
from offsft.config.evaluate import Evaluate, PromptStyle
from offsft.config.model import Model, Prompt
from offsft.config.plan import Plan
from offsft.config.recipe import Recipe
from offsft.config.rewrite import Engine, Rewrite
from offsft.config.serve import Generator, Limits, Routing, ServedModel, Serving
from offsft.config.suite import Suite
from offsft.config.train import Lora, SourceWeights, Train
from offsft.config.verify import Judge, Tolerance, Verify

__all__ = [
    "Arm",
    "Cluster",
    "Compare",
    "Data",
    "Domain",
    "Engine",
    "Evaluate",
    "Fields",
    "Gap",
    "GapSide",
    "Generator",
    "Judge",
    "Limits",
    "Lora",
    "Model",
    "Plan",
    "ProblemRows",
    "Prompt",
    "PromptStyle",
    "Recipe",
    "Rewrite",
    "Routing",
    "ServedModel",
    "Serving",
    "SourceWeights",
    "Suite",
    "Tolerance",
    "Train",
    "Verify",
]
