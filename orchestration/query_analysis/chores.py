"""Recognises chores: what chat pages and tools ask of a model besides the conversation, such as a title for
it.

One model does them best and fast; a team that plans a title takes half a minute. They are recognised by their
request: a title, tags, a summary, follow-up questions, search queries, an emoji, a completion, or JSON.
"""

from __future__ import annotations

import re

SCANNED_CHARACTERS = 2_000
"""Characters that are read at each end: the request is there, the conversation that it refers to between
them."""

_DO = (
    r"(?:generate|write|create|give|make|suggest|provide|produce|draft|propose|come up with|craft|extract|"
    r"add|assign|find|choose|think of|output|return|erstelle?|schreibe?|mache?|erzeuge?|gib|génère|écris|"
    r"donne|crée|fais|escribe|genera|crea|dame|scrivi|gere|escreva|crie|haz)"
)
_NAME = r"(?:titles?|headlines?|header|heading|subject lines?|titel|überschrift|titre|título|titolo)"
_WHAT = (
    rf"(?:{_NAME}|tags?|keywords?|hashtags?|summar(?:y|ies)|follow[- ]?ups?|commit messages?|image prompts?|"
    r"search quer(?:y|ies)|emojis?|schlagw\w+|zusammenfassung|résumé|étiquettes|resumen|etiquetas|resumo|"
    r"riassunto)"
)
_ITS = r"(?:this|that|the|our|my|diese\w*|das|ce|cette|este|esta|questo)"
_TALK = r"(?:conversation|chat|discussion|dialog(?:ue)?|thread|session|messages?|text|gespräch)"
_CHORE = re.compile(
    rf"(?<!\w){_DO}\b[^.!?\n]{{0,100}}?(?<!\w){_WHAT}(?!\w)|"
    rf"(?<!\w)(?:concise|short|brief|fitting|suitable|appropriate|descriptive|catchy)\b"
    rf"[^.!?\n]{{0,60}}?(?<!\w){_WHAT}(?!\w)|(?<!\w)good {_NAME} for (?:an? |{_ITS} )|"
    rf"(?<!\w)name {_ITS} {_TALK}|(?<!\w){_TALK} a (?:short |brief )?name(?!\w)|"
    r"(?<!\w)(?:summari[sz]e|summari[sz]ing|tl;?dr|zusammenfassen|fass(?:e|t)?\b[^.!?\n]{0,80}\bzusammen|"
    r"résume[rz]?|resum(?:e|ir) (?:el|la|los|las|lo|este|esta|en|o|a|os|as)|riassum(?:i|ere))(?!\w)|"
    rf"(?<!\w)condense {_ITS}(?!\w)|\bstandalone question\b|"
    r"\bquestions?\b[^.!?\n]{0,20}\buser (?:might|may|could|would|can)\b[^.!?\n]{0,20}\bask\b|"
    r"\bbrief topic of\b|"
    r"###\s*(?:task|output|guidelines)\b|"
    r"\b(?:in|as|with|return|output|only|valid|format:?) (?:an? )?(?:valid )?(?:raw )?json\b|"
    r"\bjson (?:format|object|array|only|schema)\b|"
    r"\btitle in \d+ words|\d+[- ]words?(?:[- ]or[- ]less)? title|"
    r"\bautocomplet\w+ system|"
    r"(?:生成|返回).{0,20}(?:标题|標題|标签|摘要|主题|主題)|总结|總結|概括|タイトルを|要約|"
    r"(?:напиши|придумай|сделай|дай|создай)\b.{0,40}(?:заголов|назван|содержани|тег|резюме)",
    re.IGNORECASE,
)
_JSON = re.compile(r"json", re.IGNORECASE)
_FIRST = re.compile(rf"(?<!\w){_DO}(?!\w)", re.IGNORECASE)
_SHORT = re.compile(
    rf"{_DO}(?:[ ,]+(?!(?:it|them|each|every|your|with|and|about|that|of|including|und|mit|avec|con)\b)"
    rf"[^\s.!?]+){{0,9}}?[ ,]+(?:{_NAME}|tags|hashtags|keywords|follow[- ]?ups?|search queries)\b"
    r"(?!,| (?:and|und|et|y|plus)\b)",
    re.IGNORECASE,
)
"""Requests a few words and nothing else."""
_LONG = re.compile(r"summar(?:y|ies|i[sz]e)\b|zusammenf|fasse?\b.*zusammen|résum|resum", re.IGNORECASE)
_HAS_SOURCE = re.compile(rf"(?<!\w)(?:above|below|following|{_TALK}|json)(?!\w)|[:\n]", re.IGNORECASE)
SHORT_CHARACTERS = 200
_EXISTING_TITLE = re.compile(
    rf"(?<!\w)(?:the|exact|full|original) (?:\w+ )?{_NAME} (?:of|from|in) "
    rf"(?!(?:an?|{_ITS}) (?:\w+ )?{_TALK})",
    re.IGNORECASE,
)
"""Asks for the existing title of something."""
_HOW = re.compile(
    r"(?<!\w)(?:how (?:do|does|did|can|could|should|would|to)|wie (?:\w+ ){1,2}(?:man|ich|wir)|"
    r"comment)(?!\w)",
    re.IGNORECASE,
)
"""Asks how a chore is done."""
_PROGRAM = re.compile(r"\b(?:function|program|script|code|class|endpoint|api|parser|server)\b", re.IGNORECASE)


def is_chore(text: str) -> bool:
    """Whether a text requests a title, tags, a summary, JSON or the like. A request for a program that does
    so is not a chore."""
    scanned = _scanned(text)
    return any(_instructs(scanned, found) for found in _CHORE.finditer(scanned))


def is_form_alone(text: str) -> bool:
    """Whether a text is a chore only because it requests JSON: its question may be of any kind."""
    scanned = _scanned(text)
    found = [each.group() for each in _CHORE.finditer(scanned) if _instructs(scanned, each)]
    return bool(found) and all(_JSON.search(each) for each in found)


def is_short_chore(text: str) -> bool:
    """Whether a text first requests a title, tags or the like, which are a few words. A summary or JSON may
    be long, and so may a poem with a title."""
    first = _FIRST.search(text[:SCANNED_CHARACTERS])
    return first is not None and _SHORT.match(text, first.start()) is not None and is_chore(text)


def is_summary_of_what_it_names(text: str) -> bool:
    """Whether a text requests a summary of something that it names but does not contain; documents may
    contain it."""
    has_source = len(text) > SHORT_CHARACTERS or _HAS_SOURCE.search(text.strip()) is not None
    return not has_source and _LONG.search(text) is not None


def _scanned(text: str) -> str:
    return (
        text
        if len(text) <= 2 * SCANNED_CHARACTERS
        else f"{text[:SCANNED_CHARACTERS]}\n{text[-SCANNED_CHARACTERS:]}"
    )


def _instructs(text: str, found: re.Match[str]) -> bool:
    begin = 1 + max(text.rfind(mark, 0, found.start()) for mark in "\n.!?")
    sentence = text[begin : found.end()]
    if _PROGRAM.search(sentence) or _HOW.search(sentence):
        return False
    return _EXISTING_TITLE.search(text[begin : found.end() + 40]) is None
