"""The last `\\boxed{...}` of a text, in linear time whatever the text holds."""

_OPENING = "\\boxed"


def last_boxed(text: str) -> str | None:
    """Content of the last complete `\\boxed{...}` (balanced braces) or `\\boxed 7`, stripped; None where there is none."""
    end = len(text)
    while (start := text.rfind(_OPENING, 0, end)) >= 0:
        content = _braced(text, start + len(_OPENING), end)
        if content is not None:
            return content.strip()
        # An incomplete box was read to `end`; only what stands before it is still unread, so the walk stays linear.
        end = start
    return None


def _braced(text: str, at: int, end: int) -> str | None:
    while at < end and text[at] == " ":
        at += 1
    if at >= end:
        return None
    if text[at] != "{":
        word = text[at:end].split(maxsplit=1)[0] if text[at:end].strip() else ""
        return word or None
    depth = 0
    for position in range(at, end):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[at + 1 : position]
    return None
