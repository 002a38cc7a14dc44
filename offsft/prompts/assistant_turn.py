"""What a template puts around the assistant's answer, taken from what it renders itself."""

import re
from dataclasses import dataclass

from offsft.errors import ModelError
from offsft.prompts.chat_template import MARK, Template
from offsft.prompts.codec import Codec, Markup
from offsft.prompts.thoughts import Marks

_QUESTION = "offsft-question-goes-here"


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """The assistant's turn as the template writes it: `opening`, `lead`, an answer, `end`.

    `opening` is what follows the user's text in a prompt: sampling begins after it. `lead` is what the template writes
    between it and an answer, such as a header, an empty thought or a space. `end` begins right after the answer and ends
    with the token `stop_id`, which ends generation. `opened` says that `opening` leaves the model inside a thought.
    """

    opening: str
    lead: str
    end: str
    stop_id: int
    opened: bool
    marks: Marks | None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end generation: a server of the trained model must stop at them."""
        return (self.stop_id,)

    def describe(self) -> str:
        """The turn in one line, for people."""
        thought = ", inside a thought" if self.opened else ""
        return f"{self.opening!r}{thought}, then {self.lead!r}, the answer, and {self.end!r} (token {self.stop_id})"

    def around(self, thought: str) -> list[Markup | str]:
        """What stands before an answer that follows a thought; an empty one is written as the template does it.

        A thought is left out where the prompt has closed an empty one already, or where the model has no marks for any.
        """
        if not thought or self.marks is None or self.marks.closing in self.opening:
            return [Markup(self.lead)]
        closing = self.marks.closing
        before, _, after = self.lead.rpartition(closing) if closing in self.lead else (self.lead, "", "\n\n")
        header = before.partition(self.marks.opening)[0]
        opening = _line_break(self.opening) if self.opened else f"{header}{self.marks.opening}\n"
        return [Markup(opening), thought, Markup(f"\n{closing}{after}")]


def find_turn(template: Template, codec: Codec, marks: Marks | None) -> AssistantTurn:
    """Find the assistant's turn from what the template renders of a question, with and without an answer.

    Raises:
        ModelError: the two renderings do not agree, or nothing that is a token ends the turn.
    """
    prompt, whole = template.prompt(_QUESTION), template.answered(_QUESTION, MARK)
    head, _, tail = whole.partition(MARK)
    opening = prompt.rpartition(_QUESTION)[2]
    lead, opened = _lead(prompt, head, whole, codec, marks)
    end, stop_id = _end(tail, codec)
    return AssistantTurn(opening, lead, end, stop_id, opened, marks)


def _lead(prompt: str, head: str, whole: str, codec: Codec, marks: Marks | None) -> tuple[str, bool]:
    """What stands between the prompt and an answer, and whether the prompt has opened a thought."""
    thought = _thought_at_the_end(prompt, marks)
    opened = thought is not None and marks is not None and marks.closing not in thought
    if head.startswith(prompt):
        lead = head.removeprefix(prompt)
    elif thought and head.startswith(prompt.removesuffix(thought)):
        # The template leaves thoughts out of what it renders of an answer.
        lead = head.removeprefix(prompt.removesuffix(thought)).strip()
    else:
        raise ModelError(
            f"the chat template of {codec.name!r} does not begin an answer as its prompt ends, so what is trained would not"
            f" be what is sampled: the prompt is {prompt!r}, and with an answer it is {whole!r}; use a model with another"
            " template, or prompt.template=none"
        )
    if opened and marks is not None and marks.closing not in lead:
        lead = f"{_line_break(prompt)}\n{marks.closing}\n\n{lead.lstrip()}"
    return lead, opened


def _line_break(before: str) -> str:
    return "" if before[-1:].isspace() else "\n"


def _thought_at_the_end(prompt: str, marks: Marks | None) -> str | None:
    """The opened or empty thought that ends a prompt."""
    if marks is None:
        return None
    opening, closing = re.escape(marks.opening), re.escape(marks.closing)
    found = re.search(rf"(?:{opening}\s*(?:{closing}\s*)?|{closing}\s*)\Z", prompt)
    return found[0] if found else None


def _end(tail: str, codec: Codec) -> tuple[str, int]:
    """The end of the turn up to and with the token that ends generation, and that token's id.

    That is the first control token after the answer, or the end of sequence among those that follow it at once.
    """
    controls = codec.controls_in(tail)
    if controls:
        run = [controls[0]]
        for match in controls[1:]:
            if match.start() != run[-1].end():
                break
            run.append(match)
        last = next((match for match in run if codec.control[match[0]] == codec.eos), run[0])
        return tail[: last.end()], codec.control[last[0]]
    if tail.strip():
        raise ModelError(
            f"the chat template of {codec.name!r} ends an answer with {tail!r}, which is no token of its own but"
            f" {[codec.decode([id_]) for id_ in codec.encode(tail)]!r}: nothing would end generation; let the template end"
            " it with the tokenizer's end token, or set prompt.template=none"
        )
    if codec.eos is None:
        raise ModelError(
            f"the chat template of {codec.name!r} ends an answer with no token, and the tokenizer has no end of sequence;"
            " set eos_token in the model's tokenizer_config.json"
        )
    return codec.decode([codec.eos]), codec.eos
