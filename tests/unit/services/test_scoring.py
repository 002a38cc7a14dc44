"""A prompt is scored once for all samples, and the answer is that of one request."""

from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest, CompletionResponse

from services.scoring import join, split


def logprobs(tokens, values):
    tops = [None if value is None else {token: value} for token, value in zip(tokens, values, strict=True)]
    offsets = [sum(len(token) for token in tokens[:index]) for index in range(len(tokens))]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}


def response(*choices):
    usage = {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    listed = [{"index": index, "finish_reason": "length", **choice} for index, choice in enumerate(choices)]
    return CompletionResponse(model="m", choices=listed, usage=usage)


def test_each_sample_gets_its_own_prompts_log_probs_in_front():
    request = CompletionRequest(prompt=["ab", "cd"], n=2, max_tokens=1, echo=True, logprobs=1, request_id="r")
    prompt, samples = split(request)
    assert (prompt.n, prompt.max_tokens, prompt.echo) == (1, 0, True)
    assert (samples.n, samples.max_tokens, samples.echo, samples.prompt_logprobs) == (2, 1, False, None)
    scored = response(
        {"text": "ab", "logprobs": logprobs(["a", "b"], [None, -1.0])},
        {"text": "cd", "logprobs": logprobs(["c", "d"], [None, -2.0])},
    )
    sampled = response(*({"text": text, "logprobs": logprobs([text], [-3.0])} for text in "wxyz"))
    answer = join(scored, sampled, request)
    assert [choice.text for choice in answer.choices] == ["abw", "abx", "cdy", "cdz"]
    assert answer.choices[3].logprobs.model_dump() == logprobs(["c", "d", "z"], [None, -2.0, -3.0])
    assert answer.usage.completion_tokens == 4


def test_what_repeats_no_work_stays_one_request():
    message = [{"role": "user", "content": "a"}]
    for request in (
        CompletionRequest(prompt="a", n=3),
        CompletionRequest(prompt="a", n=3, echo=True),
        CompletionRequest(prompt="a", n=1, echo=True, logprobs=1),
        CompletionRequest(prompt="a", n=3, logprobs=1),
        ChatCompletionRequest(messages=message, n=3, logprobs=True),
    ):
        assert split(request) is None
    prompt, samples = split(ChatCompletionRequest(messages=message, n=3, prompt_logprobs=1))
    assert (prompt.n, prompt.max_completion_tokens) == (1, 1)
    assert (samples.n, samples.prompt_logprobs) == (3, None)


def test_a_prompt_alone_is_scored_once_however_many_are_asked_for():
    request = CompletionRequest(prompt="ab", n=2, max_tokens=0, echo=True, logprobs=0, request_id="r")
    scored = response({"text": "ab", "logprobs": logprobs(["a", "b"], [None, -1.0])})
    sampled = response(*({"text": text, "logprobs": logprobs([text], [-3.0])} for text in "wx"))
    answer = join(scored, sampled, request)
    assert [choice.text for choice in answer.choices] == ["ab", "ab"]
    assert answer.choices[1].logprobs.tokens == ["a", "b"]
