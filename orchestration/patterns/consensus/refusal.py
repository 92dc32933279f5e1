"""Whether a text refuses to answer."""

from __future__ import annotations

import re

MOST_WORDS, LOOKED_AT = 40, 240
"""A longer text goes on to answer; it refuses at its beginning, within so many characters."""

_HELPS = (
    r"(?:help|assist|answer|provide|comply|fulfil+|do (?:that|this)|discuss|share|support|engage|respond|"
    r"continue|create|generate|write|give|offer|participate)"
)
_REFUSES = re.compile(
    rf"\bI(?:\s*['’]m|\s+am)?\s+(?:really |very |just |simply )?(?:can\s?not|can['’]t|won['’]t|will not|"
    rf"not able to|unable to|must decline|have to decline|decline)\b[^.!?\n]{{0,40}}\b{_HELPS}|"
    rf"\bI (?:must|have to|will have to) (?:decline|refuse)\b|"
    r"\bkann (?:ich )?(?:[\w,]+ ){0,6}nicht (?:\w+ )?(?:helfen|beantworten|weiterhelfen|unterstützen)\b|"
    r"\bje ne (?:peux|puis) pas\b[^.!?\n]{0,30}\b(?:aider|répondre|fournir)\b|"
    r"\bno puedo\b[^.!?\n]{0,30}\b(?:ayudar\w*|responder|proporcionar)\b|"
    r"\bnon posso\b[^.!?\n]{0,30}\b(?:aiutar\w*|rispondere|fornire)\b|"
    r"\bnão posso\b[^.!?\n]{0,30}\b(?:ajudar|responder|fornecer)\b|"
    r"\bkan (?:ik )?(?:\w+ ){0,4}niet (?:\w+ )?(?:helpen|beantwoorden)\b|"
    r"我?(?:无法|不能)(?:提供|帮助|回答|协助)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """A short text that says that its writer cannot or will not help."""
    return len(text.split()) <= MOST_WORDS and _REFUSES.search(text[:LOOKED_AT]) is not None
