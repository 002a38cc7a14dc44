"""What a domain of problems brings along: prompts, verifier, and what a row must hold. Every setting can be set apart."""

from typing import Any, Literal

Domain = Literal["math", "choice", "code", "free"]

_SHOWN = (
    "\n\nHere is one way to work it out:\n\n{solution}\n\nNow solve the problem in your own words, step by step, as if you"
    " had found the way yourself. Do not mention that a solution was shown. "
)
_ASKED = {
    "choice": "Think step by step, and put the letter of the right choice in \\boxed{}.",
    "code": "Write the Python code that solves this, in one ```python block. Give definitions only, no examples or tests.",
    "free": "Answer with your reasoning first and a clear conclusion at the end.",
}
_VERIFIERS = {"choice": "choice", "code": "code", "free": "judge"}


def with_domain(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's settings with those of its `domain` where they are not set; `math` is what all defaults are for."""
    domain = tree.get("domain")
    if domain not in _ASKED:
        return tree
    prompt, verify = tree.get("prompt") or {}, tree.get("verify") or {}
    if isinstance(prompt, dict):
        ask = _ASKED[domain]
        tree = tree | {"prompt": {"plain": f"{{problem}}\n\n{ask}", "guided": f"{{problem}}{_SHOWN}{ask}"} | prompt}
    if isinstance(verify, dict):
        tree = tree | {"verify": {"kind": _VERIFIERS[domain]} | verify}
    return tree
