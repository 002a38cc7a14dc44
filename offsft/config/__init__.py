"""Every setting of a run: strict, frozen, bounded. A recipe is one `Recipe` in YAML (read by `offsft.config.loading`).

The docstring below a field is its documentation (`--help` prints it): what it does and its unit.
"""

from offsft.config.cluster import ClusterConfig
from offsft.config.compare import Arm, CompareConfig, GapConfig, GapSide
from offsft.config.data import AnswerIs, DataConfig, Fields, ProblemRows
from offsft.config.domain import Domain
from offsft.config.engine import EngineConfig, RemoteConfig
from offsft.config.evaluate import EvaluateConfig, PromptStyle
from offsft.config.model import ModelConfig, PromptConfig, Thinking
from offsft.config.plan import PlanConfig
from offsft.config.probe import ProbeConfig, objective_name
from offsft.config.recipe import Recipe
from offsft.config.rewrite import RewriteConfig
from offsft.config.suite import Suite
from offsft.config.train import Lora, TrainConfig
from offsft.config.verify import JudgeConfig, Tolerance, VerifyConfig

__all__ = [
    "AnswerIs",
    "Arm",
    "ClusterConfig",
    "CompareConfig",
    "DataConfig",
    "Domain",
    "EngineConfig",
    "EvaluateConfig",
    "Fields",
    "GapConfig",
    "GapSide",
    "JudgeConfig",
    "Lora",
    "ModelConfig",
    "PlanConfig",
    "ProbeConfig",
    "ProblemRows",
    "PromptConfig",
    "PromptStyle",
    "Recipe",
    "RemoteConfig",
    "RewriteConfig",
    "Suite",
    "Thinking",
    "Tolerance",
    "TrainConfig",
    "VerifyConfig",
    "objective_name",
]
