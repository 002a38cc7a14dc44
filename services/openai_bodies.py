"""The bodies of the OpenAI routes: vLLM's own models, with every refusal in the form of a validation error.

vLLM's validators look into a body before its types are checked, so that a wrong type may come out of them as any
exception; and the parts of a message are checked only when somebody reads them. All of it depends on the body alone, and
is the client's to mend.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeChatRequest, TokenizeCompletionRequest

from .validation import CLIENT_MISTAKE, explain

_RENAMED = {
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "guided_choice": "structured_outputs.choice",
    "guided_grammar": "structured_outputs.grammar",
    "guided_decoding_backend": None,
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
}
"""Fields of earlier vLLMs, which the present one would ignore although they decide what an answer may be."""
_OWN = {
    "chat_template": "a client's template is not run here; the model's own is used",
    "prompt_embeds": "embeddings as a prompt are not accepted; send text or token ids",
    "kv_transfer_params": "it is between engines; clients cannot set it",
    "vllm_xargs": "clients cannot set it",
    "previous_response_id": "nothing is stored here; send the conversation as `input`",
    "background": "an answer is given to whoever waits for it; leave it out",
}
"""Why a client may not set these fields."""
_TEMPLATE_OWN = frozenset(
    {"tokenize", "messages", "conversation", "chat_template", "tools", "return_dict", "return_tensors", "tokenizer"}
)
"""Keys that the call of a template sets itself; a client's would collide with them or turn the result into another type."""

_MOST = {"messages": 2048, "tools": 128, "stop": 64, "bad_words": 1024, "logit_bias": 1024, "documents": 1024}
"""The most entries of each field that pydantic looks through entry by entry."""
_MOST_PARTS = 256
_IDS = ("stop_token_ids", "allowed_token_ids", "logprob_token_ids")


def _checked(value: Any, handler: Callable[[Any], Any], kind: type[BaseModel]) -> Any:
    if isinstance(value, dict):
        _refuse_masses(value)
        _refuse_what_is_not_for_clients(value)
    try:
        body = handler(value)
        _read_parts(body)
        return body
    except (ValidationError, PydanticCustomError):
        raise
    except Exception as error:  # whatever a validator of vLLM's raises, it is about what it was given
        raise _mistake(error, value, kind) from None


def _refuse_masses(body: dict[str, Any]) -> None:
    """Refuse at their first mistake what pydantic would report a hundred thousand times, at the cost of minutes."""
    for name, value in body.items():
        if not isinstance(value, list | dict):
            continue
        most = _MOST.get(name)
        if most is not None and len(value) > most:
            raise _told(f"{name}: it has {len(value)} entries, and at most {most} are taken", name)
        if name in _IDS and isinstance(value, list):
            wrong = next((i for i, each in enumerate(value) if type(each) is not int), None)
            if wrong is not None:
                raise _told(f"{name}.{wrong}: input should be a token id, an integer", f"{name}.{wrong}")
    prompt = body.get("prompt")
    prompts: list[Any] = prompt if isinstance(prompt, list) else []
    for index, inner in enumerate(prompts):
        if type(inner) is not type(prompts[0]) or not isinstance(inner, int | str | list):
            raise _told(f"prompt.{index}: prompts are all texts, or all lists of token ids", f"prompt.{index}")
        wrong = (
            next((i for i, each in enumerate(inner) if type(each) is not int), None) if type(inner) is list else None
        )
        if wrong is not None:
            raise _told(f"prompt.{index}.{wrong}: input should be a token id, an integer", f"prompt.{index}.{wrong}")
    messages = body.get("messages")
    if messages == []:
        raise _told("messages: there must be one at least", "messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        _refuse_shape(message, f"messages.{index}")


def _refuse_shape(message: Any, path: str) -> None:
    """Refuse what is no message at all."""
    if not isinstance(message, dict):
        raise _told(f"{path}: input should be a message, an object with a role", path)
    if not isinstance(message.get("role"), str):
        missing = "field required" if "role" not in message else "input should be a valid string"
        raise _told(f"{path}.role: {missing}", f"{path}.role")
    for name, forms in (("content", "a text or a list of parts"), ("tool_calls", "a list of calls")):
        inner = message.get(name)
        if inner is not None and not isinstance(inner, list if name == "tool_calls" else str | list):
            raise _told(f"{path}.{name}: input should be {forms}", f"{path}.{name}")
        if isinstance(inner, list) and len(inner) > _MOST_PARTS:
            raise _told(
                f"{path}.{name}: it has {len(inner)} parts, and at most {_MOST_PARTS} are taken", f"{path}.{name}"
            )


def _refuse_what_is_not_for_clients(body: dict[str, Any]) -> None:
    for name, instead in _RENAMED.items():
        if body.get(name) is not None:
            hint = f"write {instead} instead" if instead else "leave it out"
            raise _told(f"{name}: this field is of an earlier vLLM and would have no effect; {hint}", name)
    for name, reason in _OWN.items():
        if body.get(name):
            raise _told(f"{name}: {reason}", name)
    template = body.get("chat_template_kwargs")
    if isinstance(template, dict):
        taken = sorted(_TEMPLATE_OWN & template.keys())
        if taken:
            path = f"chat_template_kwargs.{taken[0]}"
            raise _told(f"{path}: it is set by the server for every template", path)


def _read_parts(body: Any) -> None:
    """Validate the parts of each message now; pydantic keeps them as iterators that cannot be pickled either."""
    for index, message in enumerate(getattr(body, "messages", [])):
        for field in ("content", "tool_calls"):
            parts = message.get(field) if isinstance(message, dict) else None
            if parts is None or isinstance(parts, str):
                continue
            try:
                message[field] = list(parts)
            except ValidationError as error:
                raise _PartsError(error, ("messages", index, field)) from None


class _PartsError(Exception):
    """The parts of a message are wrong; `at` is their place in the body."""

    def __init__(self, error: ValidationError, at: tuple[Any, ...]) -> None:
        super().__init__(at)
        self.errors = [{**each, "loc": (*at, *each["loc"])} for each in error.errors(include_url=False)]


def _mistake(error: Exception, value: Any, kind: type[BaseModel]) -> PydanticCustomError:
    """A validation error that names the field which is to blame."""
    if isinstance(error, _PartsError):
        path, message = explain(error.errors, value)
        return _told(f"{path}: {message}", path)
    # vLLM's own refusals know their field; str() would repeat it, and the value.
    param = getattr(error, "parameter", None) or _culprit(error, value, kind)
    if hasattr(error, "parameter"):
        return _told(str(error.args[0]), param)
    path, reason = (param and _wrong_type(value, param, kind)) or (param, "it is not of the form that /docs shows")
    return _told(f"{path or 'body'}: {reason}", path)


def _culprit(error: Exception, value: Any, kind: type[BaseModel]) -> str | None:
    """The field without which the body would be valid, else one without which the error would be another."""
    if not isinstance(value, dict):
        return None
    suspect = None
    for name in kind.model_fields:
        if name not in value:
            continue
        try:
            kind.model_validate({each: content for each, content in value.items() if each != name})
        except Exception as other:  # any error: it is only compared
            if (type(other), str(other)) != (type(error), str(error)):
                suspect = suspect or name
        else:
            return name
    return suspect


def _wrong_type(value: dict[str, Any], name: str, kind: type[BaseModel]) -> tuple[str, str] | None:
    """Where and what is wrong with one field by its type alone; None if nothing is."""
    try:
        annotation: Any = kind.model_fields[name].annotation
        TypeAdapter(annotation).validate_python(value[name])
    except ValidationError as error:
        errors = [{**each, "loc": (name, *each["loc"])} for each in error.errors(include_url=False)]
        return explain(errors, value)
    except Exception:  # a validator inside the field's type, which had its say already
        return None
    return None


def _told(message: str, param: str | None) -> PydanticCustomError:
    text = message[:1].lower() + message[1:] if not message[:2].isupper() else message
    return PydanticCustomError(CLIENT_MISTAKE, "{message}", {"message": text, "param": param or ""})


def _body_of(kind: type[BaseModel]) -> WrapValidator:
    return WrapValidator(lambda value, handler: _checked(value, handler, kind))


ChatBody = Annotated[ChatCompletionRequest, _body_of(ChatCompletionRequest)]
CompletionBody = Annotated[CompletionRequest, _body_of(CompletionRequest)]
ResponsesBody = Annotated[ResponsesRequest, _body_of(ResponsesRequest)]
TokenizeBody = Annotated[TokenizeCompletionRequest, _body_of(TokenizeCompletionRequest)]
TokenizeChatBody = Annotated[TokenizeChatRequest, _body_of(TokenizeChatRequest)]
DetokenizeBody = Annotated[DetokenizeRequest, _body_of(DetokenizeRequest)]
