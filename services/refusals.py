"""Whose fault a failed request is, by the kind of exception that the engine's code raised: status, kind and field."""

import logging
from typing import Any

from ray.llm._internal.serve.core.configs.openai_api_models import ErrorInfo, ErrorResponse

ENGINE_DEAD = "EngineDeadError"

logger = logging.getLogger(__name__)


def refusal(error: Exception, request_id: str) -> ErrorResponse:
    """The error to answer with: 4xx is the client's, 503 is an engine that died, 500 is a fault of ours, which is logged.

    vLLM's own server divides them the same way. Some of its code still raises plain ValueErrors and TypeErrors for what
    a request holds: those count as the client's, and are logged too, since they could be ours.
    """
    from vllm.entrypoints.serve import create_error_response
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return _error(503, "the engine died", ENGINE_DEAD)
    told: Any = create_error_response(error).error
    if told.code >= 500:
        logger.error("request %s failed", request_id, exc_info=error)
        return _error(500, "the engine could not answer this request", told.type)
    if not isinstance(error, VLLMClientError):
        logger.warning("request %s was refused", request_id, exc_info=error)
    return ErrorResponse(error=ErrorInfo(**told.model_dump()))


def _error(status: int, message: str, kind: str) -> ErrorResponse:
    return ErrorResponse(error=ErrorInfo(message=message, type=kind, code=status))


def refuse_tools(options: dict[str, Any]) -> None:
    """Refuse a request with tools where the engine's settings name no parser for their calls.

    Raises:
        VLLMValidationError: saying which settings are wanted.
    """
    from vllm.exceptions import VLLMValidationError

    if not (options.get("enable_auto_tool_choice") and options.get("tool_call_parser")):
        raise VLLMValidationError(
            "this model is served without a parser for tool calls: its operator sets engine.args.tool_call_parser and"
            " engine.args.enable_auto_tool_choice in its recipe",
            parameter="tools",
        )
