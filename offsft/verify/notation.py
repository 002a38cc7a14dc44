"""Normalizes an answer's notation: Unicode, upright and programming spellings, and LaTeX synonyms.

`plain` is applied before anything is parsed. It changes how an answer is written, never its meaning.
"""

import re
import unicodedata
from functools import lru_cache

_UP, _UP_PLAIN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸ", "0123456789+-=()nixy"
_DOWN, _DOWN_PLAIN = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙₘₖ", "0123456789+-=()aeoxnmk"
_RAISED, _LOWERED = re.compile(f"[{_UP}]+"), re.compile(f"[{_DOWN}]+")
_FROM_RAISED, _FROM_LOWERED = str.maketrans(_UP, _UP_PLAIN), str.maketrans(_DOWN, _DOWN_PLAIN)
_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ",
    "mu": "μµ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "varphi": "φ", "phi": "ϕ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "ΩΩ",
}  # fmt: skip
_OPERATORS = {
    "infty": "∞", "cdot": "·⋅∙•", "times": "×✕", "div": "÷", "le": "≤⩽≦", "ge": "≥⩾≧", "ne": "≠", "approx": "≈≅", "pm": "±", "mp": "∓", "cup": "∪⋃",
    "cap": "∩⋂", "in": "∈", "notin": "∉", "emptyset": "∅⌀", "subset": "⊂", "subseteq": "⊆", "setminus": "∖", "equiv": "≡", "sim": "∼", "to": "→",
    "Rightarrow": "⇒", "Leftrightarrow": "⇔", "forall": "∀", "exists": "∃", "land": "∧", "lor": "∨", "neg": "¬", "angle": "∠", "triangle": "△▲",
    "perp": "⊥", "parallel": "∥", "sum": "∑", "prod": "∏", "int": "∫", "partial": "∂", "nabla": "∇", "mathbb{R}": "ℝ", "mathbb{Z}": "ℤ", "mathbb{N}": "ℕ",
    "mathbb{Q}": "ℚ", "mathbb{C}": "ℂ", "langle": "⟨〈", "rangle": "⟩〉", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "mid": "∣", "ldots": "…⋯",
}  # fmt: skip
_SIGNS = {ord(sign): f"\\{name} " for table in (_GREEK, _OPERATORS) for name, signs in table.items() for sign in signs}
_SIGNS |= (
    {ord(sign): "-" for sign in "−‐‑‒﹣－"} | {ord(sign): "/" for sign in "⁄∕"} | {ord(sign): "'" for sign in "′’‘ʹ"}
)
_SIGNS |= {
    ord("°"): "^\\circ ",
    ord("º"): "^\\circ ",
    ord("˚"): "^\\circ ",
    ord("℃"): "^\\circ C",
    ord("℉"): "^\\circ F",
    ord("Å"): "angstrom",
}
_SIGNS |= {
    ord("㎡"): " m^2",
    ord("㎠"): " cm^2",
    ord("㎢"): " km^2",
    ord("㎥"): " m^3",
    ord("㎤"): " cm^3",
    ord("、"): ",",
    ord("。"): ".",
    ord("「"): "",
    ord("」"): "",
}
_SIGNS |= {code: "" for code in (0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD, 0x200E, 0x200F)}
_VULGAR = re.compile("[¼½¾⅐-⅞↉]")
_ROOT = re.compile(r"√\s*(\d+|[A-Za-z]|\([^()]*\))")
_CUBE_ROOT = re.compile(r"∛\s*(\d+|[A-Za-z]|\([^()]*\))")
_DASH = re.compile(r"(?<![\w)}\s])\s*[–—](?=\s*[\d.\\A-Za-z(])|(?<=[(,\[=])\s*[–—]|^[–—]")

_LETTERS = str.maketrans({"ı": "i", "𝒾": "i"})
_DROPPED = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?\s*|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])\s*"
    r"|\\[hv]space\*?\{[^{}]*\}|(?<!\\)\\[\[\]()]|\\phantom\{[^{}]*\}|\\hfill"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[;:> ]|q?quad(?![A-Za-z])|enspace|thinspace)|(?<!\\)~|[\u00a0\t\r\n]+")


def _apart(match: re.Match[str], text: str) -> str:
    """The text, preceded by a space if it would otherwise become part of the command before it."""
    return f" {text}" if match.start() and match.string[match.start() - 1].isalpha() else text


_SYNONYMS = (
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\leq(?:slant|q)?(?![A-Za-z])", r"\\le"),
    (r"\\geq(?:slant|q)?(?![A-Za-z])", r"\\ge"),
    (r"\\neq(?![A-Za-z])|\\not\s*=|!=", r"\\ne "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"(?<![<=>])<=(?!>)", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\l(?:brace|cbrace)(?![A-Za-z])\s*", r"\\{"),
    (r"\\r(?:brace|cbrace)(?![A-Za-z])\s*", r"\\}"),
    (r"\\lbrack(?![A-Za-z])\s*", "["),
    (r"\\rbrack(?![A-Za-z])\s*", "]"),
    (r"\\varnothing(?![A-Za-z])|\\O(?![A-Za-z])", r"\\emptyset"),
    (r"\\infin(?![A-Za-z])", r"\\infty"),
    (r"\\(?:ast|star)(?![A-Za-z])", "*"),
    (r"\\(?:cdots|dots[cbm]?|ldots)(?![A-Za-z])|\.{3,}", r"\\ldots "),
    (r"\\colon(?![A-Za-z])", ":"),
    (r"\\vert(?![A-Za-z])|\\lvert(?![A-Za-z])|\\rvert(?![A-Za-z])|\\mid(?![A-Za-z])", "|"),
    (r"\\mathbb\s*\{?([RZNQC])\}?|\\(?:Reals|R)(?![A-Za-z])", lambda match: f"\\mathbb{{{match[1] or 'R'}}}"),
    (r"\\setminus(?![A-Za-z])|\\smallsetminus(?![A-Za-z])|\\backslash(?![A-Za-z])", r"\\setminus "),
    (r"(?:\{\})?\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\(?:degree|textdegree)(?![A-Za-z])", r"^\\circ "),
    (r"\\(?:text(?:normal|rm|sf|tt|bf|it|up|md)|mbox|hbox|textbf)(?![A-Za-z])\s*\{", r"\\text{"),
    (r"\\operatorname\s*\*?\s*\{", r"\\mathrm{"),
    (r"\\(?:math(?:it|sf|bf|tt|normal)|boldsymbol|bm)\s*\{\s*([A-Za-z]|\\pi)\s*\}", lambda match: _apart(match, match[1])),
    (r"\\mathrm\s*\{\s*([ei]|\\pi)\s*\}|(?<![\d}\s,])\\mathrm\s*\{\s*([A-Za-z])\s*\}", lambda match: _apart(match, match[1] or match[2])),
    (r"\\(?:mathrm|mathit)\s+([ei])(?![A-Za-z])", r"\1"),
    (r"(?<=\d)\s*\\text\{\s*([ei])\s*\}", r"\1"),
    (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
    (r"\\(?:mathrm\{)?(arc)?(tg|ctg)\b\}?", lambda match: f"\\{match[1] or ''}{'tan' if match[2] == 'tg' else 'cot'}"),
    (r"\\[ij]math(?![A-Za-z])", "i"),
    (r"\\(?:mathrm|mathit|mathsf)\s*\{", r"\\text{"),
    (r"\\text\{\s*(?:percent|per cent|pct\.?|\\?%)\s*\}|(?<=\d)\s*\b(?:percent|per[ ]cent|pct)\b\.?", r"\\%"),
    (r"\\(?:approx|simeq)(?![A-Za-z])\s*(?=[-\d.$\\])", "="),
    (r"\*\*", "^"),
    (r"\+\s*-\s*(?=[\d.])", "- "),
)  # fmt: skip
_REWRITES = [(re.compile(pattern), to) for pattern, to in _SYNONYMS]
_WITHOUT_COMMANDS = [
    (pattern, to) for pattern, to in _REWRITES if re.search(r"^\\\*|^\\\+|<=|>=|!=|\\\.\{3|percent", pattern.pattern)
]
"""The rewrites that may apply without a backslash: most answers are short, and have none."""
_DIGITS_ONLY = re.compile(r"[-+\d, /.]*\d", re.ASCII)
_FUNCTIONS = "arcsin|arccos|arctan|arccot|sinh|cosh|tanh|sin|cos|tan|cot|csc|ln|log|lg|gcd|lcm"
"""Functions, without those that are also units or words: `5 sec`, `8 min`."""
_NAMED = re.compile(rf"\\text\{{\s*({_FUNCTIONS}|exp|sqrt)\s*\}}|(?<![A-Za-z\\])({_FUNCTIONS})(?=\s*[(^_]|\s+\d)")
_PROGRAM_ARC = re.compile(r"(?<![A-Za-z\\])a(sin|cos|tan)(?=\s*\()")
_WORD_PI = re.compile(r"(?<![A-Za-z\\])(?:pi|PI)(?![A-Za-z])|(?<=\d)pi(?![A-Za-z])")
_WORD_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])|\\text\{\s*infinity\s*\}")
_EXP, _SQRT, _ABS = (re.compile(rf"\\?(?<![A-Za-z]){name}\s*\(") for name in ("exp", "sqrt", "abs"))
_EXP_BRACED = re.compile(r"\\exp\s*(?=\{)")
_IMAGINARY = re.compile(r"(?<=\d)j(?![A-Za-z])")
_THOUSANDS = re.compile(r"(?<=\d)\{,\}(?=\d{3}(?!\d))")
_ABOUT = re.compile(
    r"^(?:\\approx|\\sim|~|=|(?i:approximately|approx\.?|about|roughly|around|exactly))\s*(?=[-+$\\\d.])|\s*\((?i:approx(?:imately|\.)?|about|roughly|rounded)\)$"
)
_NAMED_DEGREES = re.compile(r"\^\\circ\s*(?:\\text\{\s*([CF])\s*\}|([CF]))(?![A-Za-z])")
_MOST_CHARACTERS = 4_000
_RATIO = re.compile(r"^([\d.]+)\s*(?:\\text\{)?\s*to\s*\}?\s*([\d.]+)$")


def plain(text: str) -> str:
    """The text in plain LaTeX, with one sign and one spelling per meaning."""
    text = text.strip()
    if len(text) > _MOST_CHARACTERS or _DIGITS_ONLY.fullmatch(text):
        return text
    return _rewritten(text)


@lru_cache(maxsize=4096)
def _rewritten(text: str) -> str:
    if not text.isascii():
        text = _from_unicode(text)
    has_commands = "\\" in text
    if has_commands:
        text = _THOUSANDS.sub("", _DROPPED.sub("", text))
    elif "{,}" in text:
        text = _THOUSANDS.sub("", text)
    for pattern, to in _REWRITES if has_commands else _WITHOUT_COMMANDS:
        text = pattern.sub(to, text)
    text = _NAMED_DEGREES.sub(_degrees, _SPACE.sub(" ", text))
    text = _RATIO.sub(r"\1:\2", text)
    text = _ABOUT.sub("", _functions(text)).strip().rstrip(".").rstrip()
    return text[1:-1].strip() if re.fullmatch(r"\$[^$]+\$", text) and not text[1:].startswith(("$", "\\$")) else text


def _from_unicode(text: str) -> str:
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_FROM_RAISED)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_FROM_LOWERED)}}}", text)
    text = _VULGAR.sub(_fraction, _CUBE_ROOT.sub(r"\\sqrt[3]{\1}", _ROOT.sub(r"\\sqrt{\1}", text)))
    text = _DASH.sub("-", text.replace("0\u0305", "\\overline{0}"))
    text = re.sub(r"((?:\d\u0305)+)", lambda match: f"\\overline{{{match[0].replace(chr(0x305), '')}}}", text)
    text = re.sub(r"(\d)\u0307", r"\\dot{\1}", text)
    # NFKC afterwards: it would turn ℝ into R, and x² into x2.
    return unicodedata.normalize("NFKC", text.translate(_SIGNS).translate(_LETTERS)).translate(_SIGNS)


def _fraction(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


def _functions(text: str) -> str:
    """Rewrite constants and functions in upright or programming spelling as LaTeX."""
    if not re.search(r"[A-Za-z]", text):
        return text
    text = _NAMED.sub(lambda match: f"\\{match[1] or match[2]}", _PROGRAM_ARC.sub(r"\\arc\1", text))
    text = _WORD_INFINITY.sub(r"\\infty ", _WORD_PI.sub(r"\\pi ", text))
    text = _EXP_BRACED.sub("e^", _braced(text, _EXP, "e^{", "}"))
    text = _braced(_braced(text, _SQRT, "\\sqrt{", "}"), _ABS, "|", "|")
    return _IMAGINARY.sub("i", text) if "i" not in text and not re.search(r"[a-hk-z]", text) else text


def _braced(text: str, opening: re.Pattern[str], before: str, after: str) -> str:
    """Replace each call's name and parentheses by `before` and `after`; an unclosed call stays."""
    start = 0
    while (match := opening.search(text, start)) is not None:
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            return text
        text = f"{text[: match.start()]}{before}{text[match.end() : end - 1]}{after}{text[end:]}"
        start = match.start() + len(before)
    return text


def _degrees(match: re.Match[str]) -> str:
    return "\\text{ celsius}" if "C" in (match[1], match[2]) else "\\text{ fahrenheit}"
