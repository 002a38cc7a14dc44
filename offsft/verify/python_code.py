"""Extracts the solution from a response's Python: of several blocks, the one that defines the names in the tests."""

import ast
import re
import textwrap
from collections.abc import Sequence

from offsft.verify.thoughts import without_thoughts

# No backtracking (`*+`): 100,000 backticks or spaces would hold up the engine that waits for this.
_FENCE = re.compile(r"(?<!`)`{3,}+[ \t]*+(?P<language>[A-Za-z0-9+#]*+)[^\n`]*+\n(?P<code>.*?)(?:```|\Z)", re.DOTALL)
_PYTHON = ("", "python", "py", "python3", "pycon")
_DEFINES = re.compile(r"^(?:async def|def|class)\s", re.MULTILINE)
_DEFINED = re.compile(r"^(?:(?:async )?def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
_BEGINS = re.compile(r"^(?:async def|def|class|import|from|@)\b", re.MULTILINE)
_MOST_TRIES = 60
_LONGEST_UNFENCED = 100_000


def extract_code(response: str, names: Sequence[str] = (), *, prompt: str = "") -> tuple[str | None, str]:
    """The solution in a response and its place; the tests use `names`, and the solution may continue `prompt`.

    It is the last block that defines the most of these names, else the last that defines anything other than tests,
    else the last. Without a block it is the part of the response that is Python without fences.
    """
    response = without_thoughts(response)
    matches = [match for match in _FENCE.finditer(response) if match["language"].lower() in _PYTHON]
    blocks = [
        textwrap.dedent(match["code"]) if match["code"][:1] in " \t" and not prompt else match["code"]
        for match in matches
    ]
    code, where = _best(blocks, names), "fenced block"
    if code is None or not _defines_any(code, names):
        unfenced = _unfenced(response)
        if unfenced is not None and (code is None or _defines_any(unfenced, names)):
            code, where = unfenced, "response"
    if prompt and not _defines_any(code or "", names[:1]):
        continued = _continued(prompt, code if code is not None else response)
        if continued is not None:
            return continued, "continuation of the prompt"
    return code, where if code is not None else ""


def _best(blocks: list[str], names: Sequence[str]) -> str | None:
    """The block to run, preceded by the earlier ones that define the names missing from it."""
    if not blocks:
        return None
    known = [_names_defined(block) & set(names) for block in blocks]
    most = max(map(len, known))
    if most:
        chosen = max(place for place, found in enumerate(known) if len(found) == most)
        lacking = set(names) - known[chosen]
        helpers = [block for block, found in zip(blocks[:chosen], known, strict=False) if found & lacking]
        return "\n".join([*helpers, blocks[chosen]])
    defining = [block for block in blocks if _DEFINES.search(block)]
    solving = [
        block for block in defining if not all(name.startswith(("test", "Test")) for name in _names_defined(block))
    ]
    return (solving or defining or blocks)[-1]


def _names_defined(code: str) -> set[str]:
    return {first or second for first, second in _DEFINED.findall(code)}


def _defines_any(code: str, names: Sequence[str]) -> bool:
    return not names or not _names_defined(code).isdisjoint(names)


def _unfenced(response: str) -> str | None:
    """The response, or its part that begins like Python, as far as it is valid Python and defines something."""
    if len(response) > _LONGEST_UNFENCED:
        return None
    text = response.partition("```")[0] if response.count("```") == 1 else response
    if _is_python(text):
        return text if ast.parse(text).body and _DEFINES.search(text) else None
    begins = _BEGINS.search(text)
    if begins is None:
        return None
    lines = text[begins.start() :].splitlines()
    ends = [place for place in range(len(lines), 0, -1) if place == len(lines) or _may_end(lines[place])]
    for end in ends[:_MOST_TRIES]:
        code = "\n".join(lines[:end])
        if _DEFINES.search(code) and _is_python(code):
            return code.rstrip() + "\n"
    return None


def _may_end(line: str) -> bool:
    """Whether code can end before a line, that is, whether the line is not indented."""
    return line[:1] not in ("", " ", "\t", ")", "]", "}")


def _continued(prompt: str, code: str) -> str | None:
    """The prompt joined with a response that continues it; None if the result does not compile."""
    for text in (code, code.strip("\n"), textwrap.indent(textwrap.dedent(code), "    ")):
        joined = f"{prompt.rstrip()}\n{text}" if prompt.strip() else text
        if _compiles(joined):
            return joined
    return None


def _compiles(text: str) -> bool:
    """Whether a text is a valid program: `return` outside a function parses as Python, but does not compile."""
    try:
        compile(text, "response", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
