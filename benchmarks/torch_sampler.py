"""Samples and scores a model with transformers alone: whole batches, one thread, float32.

For measuring where an engine is too much: it starts in seconds, and a batch of a small model needs one core.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from offsft.protocols import SamplingParams
from offsft.records import Completion


class TorchSampler:
    """One policy; `decode` gives the text of ids without control tokens, `stop_ids` end a turn."""

    def __init__(self, model: str, stop_ids: tuple[int, ...], decode: Callable[[list[int]], str], seed: int) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        stops = self._model.generation_config.eos_token_id
        self._stops = {*stop_ids, *(stops if isinstance(stops, list) else [stops])}
        self._decode = decode

    @torch.inference_mode()
    def sample_batch(self, prompts: list[list[int]], n: int, params: SamplingParams) -> list[list[Completion]]:
        """`n` completions of each prompt, all in one batch."""
        widest = max(map(len, prompts))
        ids = torch.tensor([[0] * (widest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (widest - len(each)) + [1] * len(each) for each in prompts])
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self._model(ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(n, 0)
        cache.batch_repeat_interleave(n)
        mask, place = mask.repeat_interleave(n, 0), places[:, -1].repeat_interleave(n, 0)
        rows = list(range(len(prompts) * n))
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        for _ in range(params.max_tokens):
            scores = torch.log_softmax(logits / params.temperature, -1)
            drawn = torch.multinomial(scores.exp(), 1)[:, 0]
            said = scores.gather(1, drawn[:, None])[:, 0]
            for row, token, logprob in zip(rows, drawn.tolist(), said.tolist(), strict=True):
                tokens[row].append(token)
                logprobs[row].append(logprob)
            going = [at for at, row in enumerate(rows) if tokens[row][-1] not in self._stops]
            if not going:
                break
            if len(going) < len(rows):
                rows = [rows[at] for at in going]
                cache.batch_select_indices(torch.tensor(going))
                mask, place, drawn = mask[going], place[going], drawn[going]
            mask, place = torch.cat([mask, mask.new_ones(len(rows), 1)], 1), place + 1
            out = self._model(
                drawn[:, None], attention_mask=mask, position_ids=place[:, None], past_key_values=cache, use_cache=True
            )
            cache, logits = out.past_key_values, out.logits[:, -1]
        done = [self._completion(t, p) for t, p in zip(tokens, logprobs, strict=True)]
        return [done[start : start + n] for start in range(0, len(done), n)]

    @torch.inference_mode()
    def score_batch(self, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Log-probs of each response's tokens after its prompt; padded on the right, which causal attention ignores."""
        ids = pad_sequence([torch.tensor([*prompt, *response]) for prompt, response in pairs], batch_first=True)
        found = []
        hidden = self._model.model(ids).last_hidden_state
        for row, (prompt, response) in enumerate(pairs):
            start = len(prompt) - 1
            logits = self._model.lm_head(hidden[row, start : start + len(response)])
            scores = torch.log_softmax(logits, -1).gather(1, torch.tensor(response)[:, None])[:, 0]
            found.append(scores.tolist())
        return found

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        ended = tokens[-1] in self._stops
        return Completion(
            self._decode(tokens[:-1] if ended else tokens), tokens, logprobs, "stop" if ended else "length"
        )
