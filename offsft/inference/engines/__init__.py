"""Engines that sample and score, one file per kind, each behind `offsft.protocols.Sampler`.

To add one: a file here with `check` and `open_engine`, a line in `ENGINES`, and its settings in `offsft.config.engine`.
Engines are imported when they are opened, so that the libraries of an unused kind need not be installed.
"""

from importlib import import_module
from typing import Protocol, cast

from offsft.config import EngineConfig
from offsft.inference.engines.base import EngineSetup
from offsft.prompts import Prompts
from offsft.protocols import Sampler

ENGINES = {
    "vllm": "offsft.inference.engines.vllm",
    "remote": "offsft.inference.engines.remote",
}
"""Module by `engine.kind`."""


class EngineModule(Protocol):
    """The functions that a module in `ENGINES` defines."""

    def check(self, engine: EngineConfig) -> None:
        """Refuse settings that this kind does not support; called on the driver before Ray or an engine starts.

        Raises:
            ConfigError: naming the setting.
        """
        ...

    def open_engine(self, setup: EngineSetup, prompts: Prompts) -> Sampler:
        """Start or connect to the engine.

        Raises:
            EngineError: with the engine's own reason.
        """
        ...


def check_engine(engine: EngineConfig) -> None:
    """Refuse settings that the engine's kind does not support, before anything has started.

    Raises:
        ConfigError: naming the setting and what to do.
    """
    _module(engine).check(engine)


def open_engine(setup: EngineSetup, prompts: Prompts) -> Sampler:
    """Open the engine that a recipe names, ready to sample; `prompts` use the model's own tokenizer.

    Raises:
        EngineError: it does not start or cannot be reached; with its own reason.
    """
    return _module(setup.engine).open_engine(setup, prompts)


def _module(engine: EngineConfig) -> EngineModule:
    return cast(EngineModule, import_module(ENGINES[engine.kind]))
