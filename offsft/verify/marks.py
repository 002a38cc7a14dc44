"""The forms in which a response marks its answer: words of many languages, headings, tags, displays.

Each pattern is linear in the text. The content of a form is in a named group: `said` (the rest of a sentence, which may
go on), or another name (all of it).
"""

import re

_ADVERBS = (
    r"(?:(?:therefore|thus|then|hence|simply|just|indeed|exactly|actually|clearly|only|still|again|so|now|:)[ ])?"
)
_GAP = r"(?:[ \t*_:：=\u200b]|\n)*"

ENGLISH = re.compile(
    # `The final answer is 45`, `**Answer:** 45`, `Answer to the first question = 45`, `Answer seems to be 45`, `Ans. 45`.
    r"(?:\b(?:Ans|ANS)\b(?:\.|[ \t]*[=:：])|\b(?i:answer)\b(?:[ ](?:to|for|in|of|as|here)(?:[ ][^\n.:=]{1,80}?)?|[ ]?\([^()\n]{1,60}\))?[ \t*_]*"
    r"(?:(?<![A-Za-z])(?i:is|equals|(?:should|must|would|will|can[ ]only)[ ]be|comes[ ]out[ ]to|becomes|(?:seems|appears|turns[ ]out)[ ]to[ ]be)\b|[=:：]))"
    rf"{_GAP}{_ADVERBS}(?=(?P<said>[^\n]+))"
)

_COLON = r"[ \t*_]*[:：]"
_WORDS = (
    # Chinese, Japanese, Korean
    r"(?:最[终終]|正[确確]|所以|因此)?(?:的)?答(?:案|复|曰)(?:应该|應該|应|應)?(?:[是为為]|选|選|[ \t*_]*[:：=])|答[ \t*_]*[:：]",
    r"(?:最終的な)?(?:答え|正解|解答|回答)(?:[はが]|[ \t*_]*[:：])",
    r"(?:최종[ ]?)?(?:정답|답변|답)(?:[은는이]|[ \t*_]*[:：])",
    # Germanic, Romance
    rf"(?i:\b(?:(?:end)?antwort|endergebnis)\b(?:[ ](?:ist|lautet)\b|{_COLON}))",
    rf"(?i:\b(?:réponse|reponse)(?:[ ](?:finale|correcte|exacte))?(?:[ ]est(?:[ ]donc)?\b|{_COLON}))",
    rf"(?i:\b(?:respuesta)(?:[ ](?:final|correcta))?(?:[ ]es\b|{_COLON}))",
    rf"(?i:\b(?:resposta|résposta)(?:[ ](?:final|correta|correcta))?(?:[ ](?:é|es)(?![a-z])|{_COLON}))",
    rf"(?i:\b(?:risposta)(?:[ ](?:finale|corretta|esatta))?(?:[ ]è(?![a-z])|{_COLON}))",
    rf"(?i:\b(?:răspunsul|răspuns)(?:[ ](?:final|corect))?(?:[ ]este\b|{_COLON}))",
    rf"(?i:\b(?:antwoord)(?:[ ]is\b|{_COLON}))",
    rf"(?i:\b(?:svar(?:et)?|vastaus)(?:[ ](?:är|er|on)\b|{_COLON}))",
    # Slavic, and others
    r"(?i:\bответ(?:ом)?(?:[ ](?:является|равен)\b|[ \t*_]*[:：—–-]))",
    rf"(?i:\b(?:відповідь|одговор|отговор|odpowiedź|odpowiedzią|odpověď|odpoveď|odgovor)(?:[ ](?:to|je|jest)\b|{_COLON}))",
    rf"(?i:\b(?:cevap|yanıt|válasz|απάντηση)(?:{_COLON}))",
    rf"(?i:\b(?:jawaban(?:nya)?|đáp[ ]án|câu[ ]trả[ ]lời|jibu|sagot|idahun|ìdáhùn)(?:[ ](?:adalah|là|ni|ay)\b|{_COLON}))",
    # Indian scripts, Thai, Arabic, Persian, Hebrew
    r"(?:उत्तर|जवाब|उत्तरः|উত্তর|सही[ ]उत्तर|సమాధానం|பதில்|ఉత్తరం)[ \t*_]*[:：ঃः]",
    r"(?:คำตอบ)(?:[ ]?คือ|[ \t*_]*[:：])",
    r"(?:الإجابة|الجواب|إجابة|اجابة|پاسخ|جواب|תשובה)(?:[ ](?:النهائية|الصحيحة|نهایی|הסופית))?(?:[ ](?:هي|هو|היא)|[ \t*_]*[:：])",
)
OTHER_LANGUAGES = re.compile(rf"(?:{'|'.join(_WORDS)}){_GAP}(?=(?P<said>[^\n]+))")

LINES = re.compile(
    # A separate line: `A: 18` (unless a choice B follows), or `#### 72` as in GSM8K (but not a Markdown heading).
    r"^[ \t]*\**A[:：][ \t*]*(?P<marked>(?>[^\n]+))(?!\n[ \t*]*B[:：])"
    r"|^[ \t]*####[ \t]*(?P<hashed>[-+$€£\\(\[{.\d][^\n]*)"
    # A Markdown heading with the answer below it.
    r"|^[ \t#*_]*(?i:final[ ]answer|最[终終]答案|最終的な答え|최종[ ]?답)[ \t*_:：]*\n\s*(?P<below>[^\n]+)"
    r"|^[ \t]*(?:\#{1,6}[ \t*_]*|\*\*)?(?i:(?:the[ ])?(?:correct[ ])?answer|答案|antwort|respuesta|réponse)[ \t*_:：]*\n\s*(?P<under>[^\n]+)",
    re.MULTILINE,
)

JSON_FIELD = re.compile(
    r'["\'](?i:final[_ ]?answer|answer)["\'][ \t]*:[ \t]*(?:"(?P<text>(?:[^"\\\n]|\\.){1,600})"|(?P<number>[-+]?\d[^\s,}\n]*))'
)

TAG_OPENING = re.compile(
    r"(?:<(?P<name>answer|final[_ ]?answer|ans|final|conclusion|result)>|\[(?P<square>answer|ans)\]|<\|begin_of_(?P<special>box|answer)\|>)[ \t]*",
    re.I,
)

DISPLAY_AT_END = re.compile(
    r"(?:\\\[(?P<bracket>(?:(?!\\\[|\\\]).)+)\\\]|\$\$(?P<dollars>[^$]+)\$\$)[ \t.]*\Z", re.DOTALL
)
BOLD_AT_END = re.compile(r"(?:^|\n)[ \t]*\*\*(?P<bold>[^*\n]{1,300})\*\*[ \t.]*\Z")

_ASCII_WORDS = (
    *(
        "ntwo",
        "ndergebnis",
        "eponse",
        "espuesta",
        "esposta",
        "isposta",
        "svar",
        "vastaus",
        "dgovor",
        "cevap",
        "jawaban",
        "jibu",
        "sagot",
        "idahun",
    ),
    *(
        "NTWO",
        "NDERGEBNIS",
        "EPONSE",
        "ESPUESTA",
        "ESPOSTA",
        "ISPOSTA",
        "Svar",
        "Vastaus",
        "Cevap",
        "Jawaban",
        "Jibu",
        "Sagot",
        "Idahun",
    ),
)


def statement_forms(text: str) -> list[re.Pattern[str]]:
    """The forms of statements that may be in a text: searching for a word costs far less than trying its forms."""
    speaks_of_answers = any(word in text for word in ("nswer", "NSWER", "Ans", "ANS"))
    forms = [ENGLISH] if speaks_of_answers else []
    if not text.isascii() or any(word in text for word in _ASCII_WORDS):
        forms.append(OTHER_LANGUAGES)
    if speaks_of_answers or forms or "####" in text or "A:" in text:
        forms.append(LINES)
    return forms
