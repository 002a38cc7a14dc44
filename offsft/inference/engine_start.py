"""Starts an engine, with several tries."""

import logging
import time
from collections.abc import Callable
from typing import Any

import ray

from offsft.errors import EngineError
from offsft.protocols import Sampler
from offsft.runtime.console import put_output

logger = logging.getLogger(__name__)


def start_engine(open_one: Callable[[], Sampler], tries: int, coordinator: Any) -> Sampler:
    """Start an engine with `open_one`, trying it `tries` times.

    Raises:
        EngineError: it does not start; the coordinator knows the reason.
    """
    for tries_left in reversed(range(tries)):
        try:
            return open_one()
        except EngineError as error:
            logger.exception("the engine did not start; %d tries left", tries_left)
            put_output()
            if not tries_left:
                # Awaited before raising: the driver shows this reason instead of Ray's traceback around it.
                ray.get(coordinator.engine_failed.remote(str(error)))
                raise
            time.sleep(1)
    raise AssertionError("engine.start_tries is at least 1")
