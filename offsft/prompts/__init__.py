"""Prompts and responses as token ids, by the model's own chat template.

`rendering` has `Prompts`, which all stages use. Below it: `chat_template` renders turns as text, with everything fixed
that could change from one call to the next; `assistant_turn` finds what the template puts around an answer; `thoughts`
tells a thought from an answer; `codec` turns text into ids.

Sampling, scoring and training all use the ids made here once: text is never tokenised a second time, and no second
beginning-of-sequence token can slip in.
"""

from offsft.prompts.assistant_turn import AssistantTurn
from offsft.prompts.rendering import Prompts, load_prompts
from offsft.prompts.thoughts import Parts

__all__ = ["AssistantTurn", "Parts", "Prompts", "load_prompts"]
