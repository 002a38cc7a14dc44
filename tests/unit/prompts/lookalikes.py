"""Small tokenizers with chat templates of the forms that model families have published, written for these tests."""

from typing import Any

_TEMPLATES = {
    "chatml": """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    # An answer to the last question is rendered with its thought, even an empty one; the switch writes it beforehand.
    "qwen3": """{%- for m in messages %}
{%- set content = m.content %}
{%- if m.role == 'assistant' %}
{%- set thought = m.reasoning_content if m.reasoning_content is string else '' %}
{%- if '</think>' in content %}
{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if loop.last %}{{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}{%- endif %}
{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    # Always thinks: the prompt opens the thought, and an answer is rendered with an empty one.
    "qwen3-thinking": """{%- for m in messages %}
{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + m.content + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}""",
    # Answers are rendered without their thought, and the prompt opens one.
    "deepseek-r1": """{{ bos_token }}{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|User|>' + m.content }}{%- endif %}
{%- if m.role == 'assistant' %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<|Assistant|>' + content + '<|end_of_sentence|>' }}{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{% endif %}""",
    # The first published form: the model opens its thought itself.
    "deepseek-r1-first": """{{ bos_token }}{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|User|>' + m.content }}{%- endif %}
{%- if m.role == 'assistant' %}{{- '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{- '<|Assistant|>' }}{% endif %}""",
    # Off closes a thought at once; on opens one.
    "deepseek-v3.1": """{{ bos_token }}{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|User|>' + m.content }}{%- endif %}
{%- if m.role == 'assistant' %}{{- '<|Assistant|></think>' + m.content + '<|end_of_sentence|>' }}{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{- '<|Assistant|>' }}
{%- if thinking is defined and thinking %}{{- '<think>' }}{% else %}{{- '</think>' }}{% endif %}{% endif %}""",
    # Without thinking, the prompt has an empty thought that an answer is rendered without.
    "smollm3": """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>
{% endif %}{% endif %}""",
    "llama3": """{{- bos_token }}
{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}
{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}
{%- if messages[0].role == 'system' %}{%- set system = messages[0].content|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' + date_string + '\\n\\n' + system + '<|eot_id|>' }}
{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + '<|eot_id|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    # No system turn: its text goes before the first question's; content may be a list of parts.
    "gemma3": """{{ bos_token }}
{%- if messages[0].role == 'system' %}{%- set first = messages[0].content + '\\n\\n' %}{%- set rest = messages[1:] %}
{%- else %}{%- set first = '' %}{%- set rest = messages %}{%- endif %}
{%- for m in rest %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') }}
{%- if m.content is string %}{{- m.content|trim }}
{%- else %}{%- for part in m.content %}{%- if part.type == 'text' %}{{- part.text|trim }}{%- endif %}{%- endfor %}{%- endif %}
{{- '<end_of_turn>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}""",
    # The first Gemma refuses a system turn.
    "gemma": """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content|trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
    # Reads parts alone, as templates of models with images do.
    "parts": """{% for m in messages %}<|im_start|>{{ m.role }}
{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    # The end token stands after a space, an answer too, and the marks of instructions are text.
    "llama2": """{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "mistral": """{{ bos_token }}{% for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}{% else %}{{- ' ' + m.content + eos_token }}{% endif %}{% endfor %}""",
    "alpaca": """{% for m in messages %}{% if m.role == 'user' %}### Instruction:
{{ m.content }}

{% else %}### Response:
{{ m.content }}
### End
{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}""",
    "vicuna": """{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}""",
    "phi": """{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "granite": """{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set rest = messages[1:] %}
{%- else %}{%- set system = 'Knowledge Cutoff Date: April 2024.\\nToday\\'s Date: ' + strftime_now('%B %d, %Y') + '.\\nYou are Granite.' %}
{%- if thinking %}{%- set system = system + ' Write your thoughts between <think></think>.' %}{%- endif %}{%- set rest = messages %}{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\\n' }}
{%- for m in rest %}{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}""",
    # A header of its own comes between the prompt and an answer.
    "harmony": """{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}
{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}""",
    "two-ends": """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|end_of_answer|><|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    "needs-system": """{% if messages[0].role != 'system' %}{{ raise_exception('a system message is required') }}{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    # What is sampled would begin otherwise than what is trained.
    "mismatch": """{% for m in messages %}<|im_start|>{{ 'bot' if m.role == 'assistant' else m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    "deaf": "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>\n{% endfor %}",
    "twice": "{% for m in messages %}<|im_start|>{{ m.content }} {{ m.content }}<|im_end|>{% endfor %}",
}
_EOS = {
    "deepseek-r1": "<|end_of_sentence|>",
    "deepseek-r1-first": "<|end_of_sentence|>",
    "deepseek-v3.1": "<|end_of_sentence|>",
    "gemma": "<eos>",
    "gemma3": "<eos>",
    "granite": "<|end_of_text|>",
    "harmony": "<|return|>",
    "llama3": "<|eot_id|>",
    "phi": "<|endoftext|>",
}
_THINK = ("<think>", "</think>")
_TOKENS = {
    "deepseek-r1": ("<|User|>", "<|Assistant|>", *_THINK),
    "deepseek-r1-first": ("<|User|>", "<|Assistant|>", *_THINK),
    "deepseek-v3.1": ("<|User|>", "<|Assistant|>", *_THINK),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "gemma3": ("<start_of_turn>", "<end_of_turn>"),
    "granite": ("<|start_of_role|>", "<|end_of_role|>"),
    "harmony": ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>"),
    "phi": ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    "qwen3": ("<|im_start|>", *_THINK, "<|endoftext|>"),
    "qwen3-thinking": ("<|im_start|>", *_THINK, "<|endoftext|>"),
    "smollm3": ("<|im_start|>", *_THINK),
    "two-ends": ("<|im_start|>", "<|end_of_answer|>"),
}
_WITHOUT_BOS = {"chatml", "qwen3", "qwen3-thinking", "smollm3", "parts", "phi", "granite", "harmony", "two-ends"}
_SENTENCEPIECE = {"llama2", "mistral", "alpaca", "vicuna"}
NAMES = tuple(_TEMPLATES)


def lookalike(name: str, **changes: str) -> Any:
    """A tokenizer with the template and control tokens of a family; `changes` replace `eos_token` or `template`."""
    template = changes.pop("template", _TEMPLATES[name])
    end = changes.pop("eos_token", _EOS.get(name, "</s>" if name in _SENTENCEPIECE else "<|im_end|>"))
    tokenizer = sentencepiece_like() if name in _SENTENCEPIECE else _bytes(end)
    others = _TOKENS.get(name, () if name in _SENTENCEPIECE else ("<|im_start|>", "<|im_end|>"))
    # As published, the marks of thoughts are tokens that a decoder does not leave out.
    tokenizer.add_special_tokens({"additional_special_tokens": [each for each in others if each not in _THINK]})
    tokenizer.add_tokens([each for each in others if each in _THINK])
    if name not in _WITHOUT_BOS | _SENTENCEPIECE:
        tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.chat_template = template
    tokenizer.name_or_path = name
    return tokenizer


def _bytes(end: str) -> Any:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end)


def sentencepiece_like() -> Any:
    """One token per character, with the space that Llama 2's tokenizer puts before a text, and a beginning of sequence."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", "▁", "\n", *(chr(code) for code in range(33, 127))]
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
