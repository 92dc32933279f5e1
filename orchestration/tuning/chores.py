"""Chores: what chat pages and tools ask of a model beside the talk itself, such as a title for it.

One model does them best and at once; a team that plans a title takes half a minute. They are told by what
they ask for: a title, tags, a summary, follow-up questions, search queries, an emoji, a completion, or JSON.
"""

from __future__ import annotations

import re

LOOKED_AT = 2_000
"""Characters at each end: what is wanted stands there, and the talk that it is wanted for between them."""

_DO = (
    r"(?:generate|write|create|give|make|suggest|provide|produce|draft|propose|come up with|craft|extract|"
    r"add|assign|find|choose|think of|output|return|erstelle|schreib\w*|erzeuge|gib|génère|écris|donne|crée|"
    r"escribe|genera|crea|dame|scrivi|gere|escreva|crie)"
)
_WHAT = (
    r"(?:titles?|headlines?|tags?|keywords?|hashtags?|labels?|summar(?:y|ies)|follow[- ]?ups?|"
    r"search quer(?:y|ies)|emojis?|titel|überschrift|schlagw\w+|zusammenfassung|titre|résumé|étiquettes|"
    r"título|resumen|etiquetas|resumo|titolo|riassunto)"
)
_CHORE = re.compile(
    rf"(?<!\w){_DO}\b[^.!?\n]{{0,100}}?(?<!\w){_WHAT}(?!\w)|"
    r"(?<!\w)(?:summari[sz]e|summari[sz]ing|tl;?dr|zusammenfassen|fasse\b[^.!?\n]{0,80}\bzusammen|résume[rz]?|"
    r"resume|resumir|riassumi)(?!\w)|"
    r"###\s*(?:task|output|guidelines)\b|"
    r"\b(?:in|as|with|return|output|only|valid|format:?) (?:an? )?(?:valid )?(?:raw )?json\b|"
    r"\bjson (?:format|object|array|only|schema)\b|"
    r"\btitle in \d+ words|\d+[- ]words?(?:[- ]or[- ]less)? title|give this conversation a name|"
    r"\bautocomplet\w+ system|生成.{0,20}(?:标题|標題|标签|摘要)|总结|總結|概括|タイトルを|要約",
    re.IGNORECASE,
)
_PROGRAM = re.compile(r"\b(?:function|program|script|code|class|endpoint|api|parser|server)\b", re.IGNORECASE)


def is_chore(text: str) -> bool:
    """Whether a text instructs to write a title, tags, a summary, JSON or the like. One that wants a program
    for it is none."""
    looked = text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"
    found = _CHORE.search(looked)
    if found is None:
        return False
    sentence = looked[max(0, looked.rfind("\n", 0, found.start())) : found.end()]
    return _PROGRAM.search(sentence) is None
