"""Defaults of a problem domain: prompts, verifier, and required row fields. Each can be set separately."""

from typing import Any, Literal

Domain = Literal["math", "choice", "code", "free"]

_SHOWN = (
    "\n\nHere is one way to work it out:\n\n{solution}\n\nNow solve the problem in your own words, step by step, as if you"
    " had found the way yourself. Do not mention that a solution was shown. "
)
ASKED = {
    "choice": "Think step by step, and put the letter of the right choice in \\boxed{}.",
    "code": "Write the Python code that solves this, in one ```python block. Give definitions only, no examples or tests.",
    "free": "Answer with your reasoning first and a clear conclusion at the end.",
}
"""What a domain asks for behind the problem."""
_VERIFIERS = {"choice": "choice", "code": "code", "free": "judge"}


def with_domain(tree: dict[str, Any]) -> dict[str, Any]:
    """Fill a recipe's unset settings with the defaults of its `domain`; the general defaults are those of `math`."""
    domain = tree.get("domain")
    if domain not in ASKED:
        return tree
    prompt, verify = tree.get("prompt") or {}, tree.get("verify") or {}
    if isinstance(prompt, dict):
        ask = ASKED[domain]
        tree = tree | {"prompt": {"plain": f"{{problem}}\n\n{ask}", "guided": f"{{problem}}{_SHOWN}{ask}"} | prompt}
    if isinstance(verify, dict):
        tree = tree | {"verify": {"kind": _VERIFIERS[domain]} | verify}
    return tree
