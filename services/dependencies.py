"""Dependencies of the routes."""

import logging
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from offsft.errors import OffsftError

from .admission import Gate
from .auth import Keys
from .rewriting import Rewriter
from .served_models import Models
from .settings import Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """The objects that a gateway's routes share; `verifier_kind` is how its verifier compares answers."""

    limits: Limits
    keys: Keys
    gate: Gate
    models: Models
    rewriter: Rewriter
    verifier_kind: str
    ready_timeout_s: float
    access_log: str | None
    cors_origins: tuple[str, ...] = ()

    def log_unexpected(self, error: Exception, request_id: str) -> None:
        """Log an error for the operator where no outer layer will, since the answer has begun."""
        if not isinstance(error, HTTPException | OffsftError | TimeoutError):
            logger.error("request %s failed", request_id, exc_info=error)
