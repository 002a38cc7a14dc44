"""What the routes work with."""

import logging
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from offsft.config import Limits
from offsft.errors import OffsftError
from services.gate import Gate
from services.keys import Keys
from services.models import Models
from services.rewriting import Rewriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """One gateway's parts; `verifier_kind` is how its verifier compares answers."""

    limits: Limits
    keys: Keys
    gate: Gate
    models: Models
    rewriter: Rewriter
    verifier_kind: str
    ready_timeout_s: float
    access_log: str | None

    def log_unexpected(self, error: Exception, request_id: str) -> None:
        """Keep what only the operator should see, where no outer layer will: the answer has begun."""
        if not isinstance(error, HTTPException | OffsftError | TimeoutError):
            logger.error("request %s failed", request_id, exc_info=error)
